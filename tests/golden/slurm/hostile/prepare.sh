#!/bin/bash
#SBATCH --job-name=ft-prepare-basic
#SBATCH --output='/runs/50%% "off" it'"'"'s $HOME/logs/slurm-prepare.log'
#SBATCH --open-mode=append
#SBATCH --partition=cpu
#SBATCH --account=lab@site
#SBATCH --qos=short
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=2:00:00
#SBATCH --reservation='the course'
#SBATCH --exclusive
#SBATCH --no-requeue

# shellcheck disable=SC2016  # what is in single quotes is meant as it stands
# The warning before the time limit is for ft, and would end the script before that.
trap '' USR1
stop() { printf "ft: %s\n" "$2" >&2; exit "$1"; }
# shellcheck disable=SC1090,SC1091  # the site's
type module > /dev/null 2>&1 || . '/opt/site'"'"'s modules/init.sh'
type module > /dev/null 2>&1 || stop 71 'there is no command module on this node: set module_init in the cluster profile'
module load Mamba/23.11 || stop 72 'the module Mamba/23.11 cannot be loaded; see: module avail'
module load CUDA/12.4 || stop 72 'the module CUDA/12.4 cannot be loaded; see: module avail'
type conda > /dev/null 2>&1 || stop 73 'there is no command conda: add the module that has it to the cluster profile'
eval "$(conda shell.bash hook)" || stop 73 "conda does not start"
conda activate my-env || stop 73 'the conda environment my-env cannot be activated'
export FT_AXOLOTL_PREFIX="$CONDA_PREFIX"
export HF_HOME='/scratch/my lab/hf'
export HF_HUB_CACHE='/scratch/my lab/hf/hub'
export HF_XET_CACHE='/scratch/my lab/hf/xet'
export HF_DATASETS_CACHE='/scratch/my lab/hf/datasets'
export XDG_CACHE_HOME='/scratch/my lab/cache'
export TRITON_CACHE_DIR='/scratch/my lab/cache/triton'
export TORCH_HOME='/scratch/my lab/cache/torch'
export TORCH_EXTENSIONS_DIR='/scratch/my lab/cache/torch_extensions'
export TORCHINDUCTOR_CACHE_DIR='/scratch/my lab/cache/inductor'
export WANDB_CACHE_DIR='/scratch/my lab/cache/wandb'
export WANDB_DATA_DIR='/scratch/my lab/cache/wandb'
export FT_HOME='/home/me/$ft'
export A='x '"'"'y'"'"''
if [ "${TMPDIR:-/tmp}" = /tmp ]; then export TMPDIR='/scratch/my lab/tmp'/"${SLURM_JOB_ID:-check}"; fi
mkdir -p "$TMPDIR" || stop 74 'the scratch folder /scratch/my lab cannot be written'
export LD_LIBRARY_PATH="${CONDA_PREFIX:-}/lib${LD_LIBRARY_PATH:+:${LD_LIBRARY_PATH}}"
export X="\$(id) \`id\`"
exec '/my ft/bin/python' -I -m orchestrator.cli.main job '/runs/50% "off" it'"'"'s $HOME' prepare
