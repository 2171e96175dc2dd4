#!/usr/bin/env bash
# Run the gates. ARGS has one argument a line, so that no shell ever takes it apart.
set -euo pipefail

arguments=()
if [[ -n ${CONFIG:-} ]]; then
  arguments+=("--config=$CONFIG")
fi
while IFS= read -r line; do
  line=${line%$'\r'}
  if [[ -n $line ]]; then
    arguments+=("$line")
  fi
done <<< "${ARGS:-}"

mkdir -p "$REPORTS"
exec "$DRUMGATE" run-readiness-checks ${arguments[@]+"${arguments[@]}"} \
  --report "$REPORTS/readiness.json" \
  --html-output "$REPORTS/index.html" \
  --junit "$REPORTS/readiness.xml" \
  --markdown "$REPORTS/readiness.md" \
  --github
