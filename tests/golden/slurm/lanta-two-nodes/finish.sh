#!/bin/bash
#SBATCH --job-name=ft-finish-llama3-lora-ds3
#SBATCH --output=/runs/r1/logs/slurm-finish.log
#SBATCH --open-mode=append
#SBATCH --partition=compute
#SBATCH --account=lt200000
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=2:00:00
#SBATCH --requeue

# shellcheck disable=SC2016  # what is in single quotes is meant as it stands
# The warning before the time limit is for ft, and would end the script before that.
trap '' USR1
stop() { printf "ft: %s\n" "$2" >&2; exit "$1"; }
if ! type module > /dev/null 2>&1; then
    for init in /etc/profile.d/lmod.sh /etc/profile.d/z00_lmod.sh /etc/profile.d/modules.sh /usr/share/lmod/lmod/init/bash /opt/cray/pe/lmod/lmod/init/bash /usr/share/modules/init/bash /usr/share/Modules/init/bash; do
        # shellcheck disable=SC1090  # the first that exists on this node
        if [ -r "$init" ]; then . "$init"; break; fi
    done
fi
type module > /dev/null 2>&1 || stop 71 'there is no command module on this node: set module_init in the cluster profile'
module load Mamba/23.11.0-0 || stop 72 'the module Mamba/23.11.0-0 cannot be loaded; see: module avail'
export HF_HOME=/scratch/lt200000-mine/hf
export HF_HUB_CACHE=/scratch/lt200000-mine/hf/hub
export HF_XET_CACHE=/scratch/lt200000-mine/hf/xet
export HF_DATASETS_CACHE=/scratch/lt200000-mine/hf/datasets
export XDG_CACHE_HOME=/scratch/lt200000-mine/cache
export TRITON_CACHE_DIR=/scratch/lt200000-mine/cache/triton
export TORCH_HOME=/scratch/lt200000-mine/cache/torch
export TORCH_EXTENSIONS_DIR=/scratch/lt200000-mine/cache/torch_extensions
export TORCHINDUCTOR_CACHE_DIR=/scratch/lt200000-mine/cache/inductor
export WANDB_CACHE_DIR=/scratch/lt200000-mine/cache/wandb
export WANDB_DATA_DIR=/scratch/lt200000-mine/cache/wandb
export FT_HOME=/home/me/ft
if [ "${TMPDIR:-/tmp}" = /tmp ]; then export TMPDIR=/scratch/lt200000-mine/tmp/"${SLURM_JOB_ID:-check}"; fi
mkdir -p "$TMPDIR" || stop 74 'the scratch folder /scratch/lt200000-mine cannot be written'
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_DATASETS_OFFLINE=1 WANDB_MODE=offline
export NCCL_DEBUG="WARN"
exec /ft/.venv/bin/python -I -m orchestrator.cli.main job /runs/r1 finish
