#!/bin/sh
# Print the best Python on this machine: 3.11 or newer, with venv and pip; 3.13 first.
pyenv=${PYENV_ROOT:-$HOME/.pyenv}/versions

fits() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

for version in 3.13 3.12 3.11 3.14; do
    for candidate in "python$version" "$pyenv/$version"*/bin/python; do
        if fits "$candidate"; then
            "$candidate" -c 'import sys; print(sys.executable)'
            exit 0
        fi
    done
done
fits python3 && python3 -c 'import sys; print(sys.executable)'
