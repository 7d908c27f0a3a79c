"""Figures that the paper gives (Shen et al. 2021, arXiv 1812.01243, and the first author's summary
of it). Detection: box AP / mask AP on COCO with Mask R-CNN; classification: top-1 accuracy on
ImageNet; stereo: end-point error in pixels on Scene Flow."""

SOURCE = "arXiv 1812.01243"

NORMALIZATION = {"scaling": "40.2 / 35.9", "softmax": "40.2 / 36.0"}
HEADS = {1: "40.2 / 36.0", 8: "40.3 / 36.0", 32: "40.4 / 35.9"}
MODULES_EFFICIENT = {1: "40.2 / 36.0", 5: "40.6 / 36.1", 7: "41.2 / 36.7"}
MODULES_NON_LOCAL = {1: "40.3 / 35.9", 5: "out of memory", 7: "out of memory"}
BACKBONES = {"ResNet-50": ("39.4 / 35.1", "41.2 / 36.7"),
             "ResNet-101": ("41.3 / 36.6", "43.1 / 37.9"),
             "ResNeXt-101": ("43.5 / 38.5", "44.9 / 39.5")}
IMAGENET_MODULES = {0: "76.05", 1: "76.93", 2: "77.31"}
STEREO = {"baseline": "1.09 (PSMNet)", "efficient": "0.48"}
