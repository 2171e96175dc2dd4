#!/usr/bin/env bash
# Compare MANIFEST with what it was at the commit BASE. Fails where the dataset lost something;
# a base that cannot be had or read is no reason to fail.
set -euo pipefail

skip() {
  echo "::notice title=Nothing to compare with::$1"
  exit 0
}

base=${BASE:-}
[[ $base =~ ^[0-9a-f]{40}$ && ! $base =~ ^0+$ ]] || skip "there is no earlier commit"
if ! git cat-file -e "$base^{commit}" 2> /dev/null; then
  git fetch --quiet --no-tags --depth=1 origin "$base" || skip "the earlier commit cannot be had"
fi
git cat-file -e "$base:./$MANIFEST" 2> /dev/null || skip "the manifest is new"

# The same place on every run: it stands in the reports, and two runs should make the same.
before=${RUNNER_TEMP:?}/earlier
rm -rf "$before"
mkdir -p "$before"
trap 'rm -rf "$before"' EXIT
# --filters: as it would lie in a checkout, be it in Git LFS.
git cat-file --filters "$base:./$MANIFEST" > "$before/${MANIFEST##*/}"
if cmp --silent "$before/${MANIFEST##*/}" "$MANIFEST"; then
  skip "the manifest has not changed"
fi

arguments=()
while IFS= read -r line; do
  line=${line%$'\r'}
  if [[ -n $line ]]; then
    arguments+=("$line")
  fi
done <<< "${COMPARE_ARGS:-}"

mkdir -p "$REPORTS"
"$DRUMGATE" dataset-health --events "$before/${MANIFEST##*/}" \
  --output "$before/health.json" > /dev/null || skip "the earlier manifest cannot be read"
"$DRUMGATE" dataset-health --events "$MANIFEST" --output "$before/now.json" > /dev/null
"$DRUMGATE" compare-manifests "$before/${MANIFEST##*/}" "$MANIFEST" \
  --json-output "$REPORTS/manifest_diff.json" --html-output "$REPORTS/manifest_diff.html"
if [[ -n ${GITHUB_STEP_SUMMARY:-} ]]; then
  "$DRUMGATE" show-report "$REPORTS/manifest_diff.json" --format markdown >> "$GITHUB_STEP_SUMMARY"
fi
"$DRUMGATE" compare-health-reports --baseline "$before/health.json" --candidate "$before/now.json" \
  ${arguments[@]+"${arguments[@]}"} --github \
  --json-output "$REPORTS/health_diff.json" --html-output "$REPORTS/health_diff.html"
