#!/usr/bin/env bash
# Install drumgate, from the checkout that this script is in, into a place of its own.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
place=${RUNNER_TEMP:?}/drumgate
python -m venv "$place"
"$place/bin/python" -m pip install --quiet --disable-pip-version-check \
  -c "$root/constraints.txt" "$root"
echo "drumgate=$place/bin/drumgate" >> "$GITHUB_OUTPUT"
