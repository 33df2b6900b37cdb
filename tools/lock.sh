#!/usr/bin/env bash
# Writes the hashed locks again: the four of the backend environments, and ft's own.
#
#   tools/lock.sh             keep every version that still fits what is asked for below
#   tools/lock.sh --upgrade   take the newest versions that fit
#
# A lock says what to install, never from where, so no URL may get into it: the indexes come from
# pip's configuration (orchestrator/environments/indexes.py) here and wherever ft is installed.
# Only its extra indexes are left out here, and its folders of wheels but for the CPU locks. They
# often hold a part of what the default index has (one platform's wheels, a CPU build of torch), uv
# would prefer them, and the lock would then hold that part's versions and hashes only.
#
# Resolving downloads metadata and a few small sdists, not the packages.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=.venv/bin/uv
locks=orchestrator/environments/locks
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

eval "$(PYTHONPATH=. .venv/bin/python -m orchestrator.environments.indexes --export)"
wheels=${UV_FIND_LINKS:-}
unset UV_INDEX UV_EXTRA_INDEX_URL UV_FIND_LINKS
read -ra flags <<< "$FT_UV_FLAGS"

# Keep in step with orchestrator/environments/locks/__init__.py (a test compares them).
# deepspeed: newer than 0.18.6 broke axolotl's CPU runs, newer than 0.18.4 is refused by
# llamafactory. torch 2.11.0 is the newest whose torchaudio was compiled against the same CUDA.
common='"bitsandbytes==0.50.2", "wandb", "tensorboard"'
axolotl="\"axolotl==0.19.0\", \"deepspeed==0.18.6\", $common"
llamafactory="\"llamafactory==0.9.5\", \"deepspeed==0.18.4\", $common"
# The registry's torchvision and torchaudio are CUDA builds that break beside a CPU torch. Text
# training needs neither; what imports torchaudio all the same gets a stand-in from the probe.
without_media='"torchvision; sys_platform == '"'never'"'", "torchaudio; sys_platform == '"'never'"'"'

only="platform_machine == 'x86_64' and platform_python_implementation == 'CPython' and \
sys_platform == 'linux'"

project() { # NAME REQUIRES-PYTHON DEPENDENCIES OVERRIDES CONSTRAINTS
    mkdir -p "$scratch/$1"
    cat > "$scratch/$1/pyproject.toml" <<EOF
[project]
name = "$1"
version = "0"
requires-python = "$2"
dependencies = [$3]
[tool.uv]
environments = ["$only"]
override-dependencies = [$4]
EOF
}

compile() { # NAME TARGET HEADER FLAGS... (and the Pythons that it is for in `pythons`)
    local name=$1 target=$2 header=$3
    shift 3
    cp "$target" "$scratch/$name/lock.txt" 2>/dev/null || true
    (
        cd "$scratch/$name"
        "$OLDPWD/$uv" pip compile --quiet pyproject.toml --output-file lock.txt --generate-hashes \
            --no-header --no-emit-index-url --no-emit-find-links "${flags[@]}" "$@" > /dev/null ||
            exit 1
        [ -n "$pythons" ] || exit 0
        # Once more for the names of the files, which only this format has: see lock_wheels.py.
        sed -E -e '/^ *#/d' -e '/^ *--hash=/d' -e 's/ *\\$//' lock.txt > pins.txt
        "$OLDPWD/$uv" pip compile --quiet pins.txt --output-file pylock.toml --no-deps \
            --format pylock.toml "${flags[@]}" "$@" > /dev/null &&
            "$OLDPWD/.venv/bin/python" "$OLDPWD/tools/lock_wheels.py" lock.txt pylock.toml $pythons
    ) || return 1  # `set -e` does not hold inside `compile ... || ...`
    if grep -nE '^[^#]*(https?|file)://|^ *-' "$scratch/$name/lock.txt" | grep -v -- '--hash='; then
        echo "$target would hold a URL or an option" >&2
        exit 1
    fi
    {
        printf '%s\n' "$header"
        # What the header says once need not stand behind every package. `==2.13.0` would let a
        # 2.13.0+cpu from a folder of wheels in, only for its hash to be refused; `===` does not.
        sed -E -e '/^# ft: /d' -e 's/^(torch|torchaudio|torchvision)==([0-9.]+ )/\1===\2/' \
            -e "s/ and ($only)//" -e "s/ ; ($only) *\\\\/ \\\\/" "$scratch/$name/lock.txt"
    } > "$scratch/$name/out"
    mv "$scratch/$name/out" "$target"
    echo "$target: $(grep -c '==' "$target") packages"
}

for backend in axolotl llamafactory; do
    if [ $backend = axolotl ]; then
        wanted=$axolotl overrides="" torch='"torch==2.13.0"'
    else
        wanted=$llamafactory overrides=$without_media
        torch='"torch==2.11.0", "torchaudio==2.11.0", "torchvision==0.26.0"'
    fi

    # CPU: one Python, the one whose CPU wheel of torch was at hand and which all tests run with.
    name=$backend-cpu
    header="# ft: $backend, CPU build of torch, Python 3.11 on Linux x86_64. Made by tools/lock.sh."
    project $name '==3.11.*' "$wanted, \"torch==2.13.0+cpu\"" "$overrides"
    pythons=3.11
    cpu=(--python-version 3.11 --python-platform x86_64-manylinux_2_28)
    UV_FIND_LINKS=$wheels compile $name $locks/$name.txt "$header" "${cpu[@]}" "$@" ||
        compile $name $locks/$name.txt "$header" "${cpu[@]}" --torch-backend cpu "$@"

    # CUDA: the registry's own build of torch. Everything that is not torch gets the CPU lock's
    # version, which is what the tests ran with, so that both Pythons share one choice. Python 3.13
    # would resolve too, but axolotl's zstandard has no wheel for it and would need a C compiler.
    name=$backend-cuda
    header="# ft: $backend, the registry's CUDA build of torch, Python 3.11 or 3.12 on Linux x86_64.
# ft: Made by tools/lock.sh. Resolved and checked for wheels, but not run: there was no GPU.
# ft: All versions but those of torch and its libraries are the CPU lock's, which is tested."
    project $name '>=3.11,<3.13' "$wanted, $torch" ""
    grep -oE '^[a-zA-Z0-9._-]+==[^ ;\\]+' $locks/$backend-cpu.txt |
        grep -vE '^(torch|torchvision|torchaudio|triton|nvidia-.*|setuptools|fsspec)==' \
            > "$scratch/$name/tested.txt"
    pythons='3.11 3.12'
    compile $name $locks/$name.txt "$header" --universal --python-version 3.11 \
        --no-annotate --constraint tested.txt "$@"
done

# ft's own environment: what pyproject.toml asks for, the tools, and what builds ft itself.
mkdir -p "$scratch/own"
cp pyproject.toml "$scratch/own/"
printf 'hatchling\neditables\n' > "$scratch/own/build.in"
pythons=
compile own requirements-dev.txt "# ft: .venv of the checkout, Python 3.11 and newer. Made by \
tools/lock.sh." --universal --python-version 3.11 --extra dev build.in "$@"
