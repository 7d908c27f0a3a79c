#!/bin/sh
# memory_growth.sh LOG.csv - says whether a training's log (train_classifier --log) shows memory that
# grows after the first epoch. The first checkpoint is written at the end of the first epoch, so the
# second row is the measure. From there on the library's own peak may rise by nothing but what
# checkpoints carry of the history, 8 bytes an epoch for each column of the log, and one step of
# 1 MiB by which the file that is put together in memory grows now and then for it; the resident
# memory of the process by these (the history three times: the program has it in an array that
# doubles) and 2% or 2 MiB, whichever is more. Exit code 1 if they rise by more, or if the log has
# fewer than four epochs.
set -eu
awk -F, '
NR == 1 {
    for (i = 1; i <= NF; i++) column[$i] = i
    if (!("peak_bytes" in column) || !("resident_bytes" in column)) {
        print "no columns peak_bytes and resident_bytes"
        failed = 1
        exit
    }
    history = 8 * NF
    step = 1048576
    next
}
{
    rows++
    seconds += $column["seconds"]
    peak = $column["peak_bytes"] + 0
    resident = $column["resident_bytes"] + 0
    if (rows == 2) { first_peak = peak; first_resident = resident }
    if (rows >= 2 && peak > first_peak + (rows - 2) * history + step) grows = 1
    if (rows >= 2 && resident > most) most = resident
}
END {
    if (failed) exit 1
    if (rows < 4) { printf "%d epochs are too few\n", rows; exit 1 }
    allowed = first_resident * 0.02 > 2097152 ? first_resident * 0.02 : 2097152
    allowed += 3 * (rows - 2) * history + step
    if (most > first_resident + allowed) grows = 1
    printf "%d epochs, %.0f s: peak of the library %.3f MB, then %.3f MB; resident %.2f MB, at most %.2f MB: %s\n",
        rows, seconds, first_peak / 1e6, peak / 1e6, first_resident / 1e6, most / 1e6,
        grows ? "it grows" : "no growth"
    exit grows + 0
}' "$1"
