#!/usr/bin/env bash
# Put what the reports say into one text that fits into a comment on a pull request.
set -euo pipefail

found=()
for name in readiness manifest_diff health_diff; do
  if [[ -s $REPORTS/$name.json ]]; then
    found+=("$REPORTS/$name.json")
  fi
done
if [[ ${found[0]:-} == "$REPORTS/readiness.json" ]]; then
  # GitHub takes 65,536 bytes; comment.sh adds where the pages are.
  "$DRUMGATE" show-report "${found[@]}" --format markdown --max-bytes 65000 > "$REPORTS/comment.md"
fi
