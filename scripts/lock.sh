#!/bin/sh
# Pin the requirement sets: everything, and (hashed) each set that a deployable is made of. Needs uv on PATH.
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
for part in onprem image lemma oidc onnx parquet signing train aws aws-runtime gcp gcp-runtime azure azure-runtime naive; do
    pin "infra/requirements/$part.in" "infra/requirements/$part.txt" --generate-hashes --constraint requirements.txt
done
# the Swagger UI files come with a template for jinja2, which nothing here reads
pin infra/requirements/predict.in infra/requirements/predict.txt --generate-hashes --constraint requirements.txt \
    --no-emit-package jinja2 --no-emit-package markupsafe
for part in build lint ministack moto policy; do
    pin "infra/requirements/$part.in" "infra/requirements/$part.txt" --generate-hashes
done
pin infra/requirements/audit.in infra/requirements/audit.txt --generate-hashes --constraint requirements.txt
# what the train set has already is left out
pin infra/requirements/train-onnx.in infra/requirements/train-onnx.txt --generate-hashes --constraint requirements.txt \
    $(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' infra/requirements/train.txt)
for part in azure-worker runtimes; do
    version=3.13 pin "infra/requirements/$part.in" "infra/requirements/$part.txt" --generate-hashes --no-deps
done
