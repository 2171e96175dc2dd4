#!/usr/bin/env bash
# Put the text BODY into a comment on a pull request: the one that is there, or else a new one.
set -euo pipefail

[[ $PULL_REQUEST =~ ^[0-9]+$ ]]
text=$(mktemp)
if [[ -s $BODY ]]; then
  cat "$BODY" > "$text"
else
  printf '<!-- drumgate:run-readiness-checks -->\n\n### ❌ Nothing was judged\n\n%s\n' \
    "The gates did not run to their end; the log says why." > "$text"
fi
printf '\n[Pages, reports and log of this run](%s)' "$RUN_URL" >> "$text"
# The comment stays and its text changes: it says which commit it is about.
if [[ ${COMMIT:-} =~ ^[0-9a-f]{40}$ ]]; then
  printf ' · commit %s' "$COMMIT" >> "$text"
fi
echo >> "$text"
marker=$(head -n 1 "$text")
[[ $marker =~ ^'<!-- drumgate:'[a-z0-9-]+' -->'$ ]]

mine=".[] | select(.user.login == \"github-actions[bot]\" and (.body | startswith(\"$marker\"))) | .id"
ids=$(gh api --paginate "repos/$REPOSITORY/issues/$PULL_REQUEST/comments?per_page=100" --jq "$mine")
first=${ids%%$'\n'*}
if [[ -n $first ]]; then
  gh api --silent --method PATCH "repos/$REPOSITORY/issues/comments/$first" --field "body=@$text"
else
  gh api --silent --method POST "repos/$REPOSITORY/issues/$PULL_REQUEST/comments" \
    --field "body=@$text"
fi
