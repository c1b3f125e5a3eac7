#!/bin/sh
# The whole experiment: data, training of both models, measurement, table and picture (docs/results/irope.md).
#   recipes/experiments/irope/run.sh [--seeds 1,2,3] [--jobs 2] [--picture FILE.svg]
set -eu
cd "$(dirname -- "$0")/../../.."
exec python3 tools/irope_experiment.py "$@"
