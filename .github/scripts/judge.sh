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
code=0
"$DRUMGATE" run-readiness-checks ${arguments[@]+"${arguments[@]}"} \
  --report "$REPORTS/readiness.json" \
  --html-output "$REPORTS/index.html" \
  --junit "$REPORTS/readiness.xml" \
  --markdown "$REPORTS/readiness.md" \
  --github || code=$?
# Of bad input there is no report: what is wrong, line by line, is all that there is to comment.
if ((code == 2)) && [[ -s ${GITHUB_STEP_SUMMARY:-} ]]; then
  { echo '<!-- drumgate:run-readiness-checks -->'; cat "$GITHUB_STEP_SUMMARY"; } \
    > "$REPORTS/comment.md"
fi
exit "$code"
