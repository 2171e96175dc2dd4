#!/usr/bin/env bash
# Put the text BODY into a comment on a pull request: the one that is there, or else a new one.
set -euo pipefail

[[ $PULL_REQUEST =~ ^[0-9]+$ ]]
if [[ ! -s $BODY ]]; then
  BODY=$(mktemp)
  printf '<!-- drumgate:run-readiness-checks -->\n\n### ❌ Nothing was judged\n\n%s\n' \
    "The gates did not run to their end: see [the log]($RUN_URL)." > "$BODY"
fi
marker=$(head -n 1 "$BODY")
[[ $marker =~ ^'<!-- drumgate:'[a-z0-9-]+' -->'$ ]]

mine=".[] | select(.user.login == \"github-actions[bot]\" and (.body | startswith(\"$marker\"))) | .id"
ids=$(gh api --paginate "repos/$REPOSITORY/issues/$PULL_REQUEST/comments?per_page=100" --jq "$mine")
first=${ids%%$'\n'*}
if [[ -n $first ]]; then
  gh api --silent --method PATCH "repos/$REPOSITORY/issues/comments/$first" --field "body=@$BODY"
else
  gh api --silent --method POST "repos/$REPOSITORY/issues/$PULL_REQUEST/comments" \
    --field "body=@$BODY"
fi
