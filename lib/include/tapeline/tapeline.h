/* tapeline.h - everything. */
#ifndef TL_TAPELINE_H
#define TL_TAPELINE_H

#include <tapeline/activation.h>
#include <tapeline/arithmetic.h>
#include <tapeline/attention.h>
#include <tapeline/attention_cost.h>
#include <tapeline/checkpoint.h>
#include <tapeline/context.h>
#include <tapeline/convolution.h>
#include <tapeline/cost_volume.h>
#include <tapeline/dataset.h>
#include <tapeline/dropout.h>
#include <tapeline/efficient_attention.h>
#include <tapeline/embedding.h>
#include <tapeline/error.h>
#include <tapeline/initialize.h>
#include <tapeline/linear_attention.h>
#include <tapeline/loader.h>
#include <tapeline/local_resnet.h>
#include <tapeline/loss.h>
#include <tapeline/matmul.h>
#include <tapeline/model.h>
#include <tapeline/non_local.h>
#include <tapeline/norm_layers.h>
#include <tapeline/normalization.h>
#include <tapeline/optimizer.h>
#include <tapeline/parallel.h>
#include <tapeline/parameters.h>
#include <tapeline/pooling.h>
#include <tapeline/profile.h>
#include <tapeline/random.h>
#include <tapeline/reduce.h>
#include <tapeline/resnet_cifar.h>
#include <tapeline/schedule.h>
#include <tapeline/shape.h>
#include <tapeline/softmax.h>
#include <tapeline/state.h>
#include <tapeline/stereo_net.h>
#include <tapeline/tape.h>
#include <tapeline/tensor.h>
#include <tapeline/upsample.h>
#include <tapeline/version.h>

#endif
