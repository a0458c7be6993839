#!/usr/bin/env bash
# Comments the review of a pull request: what submission-comment.yml runs, with gh and its variables.
set -euo pipefail

# The event of a fork names no pull request, and the review's word for it would not do.
number=$(gh api --method GET "repos/$GITHUB_REPOSITORY/pulls" \
    -f state=open -f head="$HEAD_OWNER:$HEAD_BRANCH" \
    --jq '[.[] | select(.head.sha == env.HEAD_SHA)][0].number // empty')
if [ -z "$number" ]; then
    echo "no open pull request has the commit $HEAD_SHA: nothing to comment"
    exit 0
fi
folder=$(mktemp -d)
gh run download "$RUN_ID" --repo "$GITHUB_REPOSITORY" --name review --dir "$folder"
other=$(gh api --paginate "repos/$GITHUB_REPOSITORY/pulls/$number/files" --jq '.[].filename' |
    { grep -cv '^submissions/' || true; })
xlt-bench submissions comment "$folder/review.json" --other-files "$other" --url "$RUN_URL" \
    >"$folder/comment.md"
# The one comment is replaced with each push.
gh pr comment "$number" --repo "$GITHUB_REPOSITORY" --body-file "$folder/comment.md" \
    --edit-last --create-if-none
