#!/bin/sh
# Pin the requirement sets: everything, and (hashed) one for each deployable. Needs uv on PATH.
set -eu

pin() {
    source=$1 target=$2
    shift 2
    pinned=$(uv pip compile --quiet --universal --python-version "${version:-3.11}" --no-header --no-annotate "$@" "$source")
    {
        echo "# Pinned by \`make lock\` from $source; do not edit."
        printf '%s\n' "$pinned" | grep -vE '^( *#|--)'
    } >"$target"
}

pin requirements.in requirements.txt
for part in onprem predict; do
    pin "infra/requirements/$part.in" "infra/requirements/$part.txt" --generate-hashes --constraint requirements.txt
done
version=3.13 pin infra/requirements/runtimes.in infra/requirements/runtimes.txt --generate-hashes --no-deps
