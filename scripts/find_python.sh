#!/bin/sh
# Prints the newest Python from 3.11 to 3.14 that starts and can make environments, on the PATH or pyenv's.
# Usage: find_python.sh [oldest|newest]     oldest: 3.11, newest: 3.12 or later, nothing: any of them
case "${1:-any}" in
    oldest) versions="3.11" ;;
    newest) versions="3.14 3.13 3.12" ;;
    any) versions="3.14 3.13 3.12 3.11" ;;
    *) echo "find_python.sh: there is no lane '$1'; there are oldest and newest" >&2; exit 2 ;;
esac
for version in $versions; do
    for candidate in "python$version" python3 "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
        found=$("$candidate" -c 'import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
        if [ "$found" = "$version" ]; then
            command -v "$candidate"
            exit 0
        fi
    done
done
