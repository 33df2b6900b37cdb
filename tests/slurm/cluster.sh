#!/bin/bash
# A throw-away real Slurm with several emulated nodes on this machine, for the tests.
#
#   FT_SLURM_DIR=DIR NODES=2 PORT=26817 tests/slurm/cluster.sh up|down|env|crash NODE|boot NODE
#
# No systemd, nothing in /etc; everything is below $FT_SLURM_DIR. Debian's slurmd can run several
# times on one host (MULTIPLE_SLURMD). With NETNS=1 (root) each node has a network namespace, an
# address and a host name of its own, so that "localhost" of one is not the other's.
# Debian packages: slurmctld slurmd slurm-client munge, and iproute2 for NETNS=1.
set -euo pipefail

dir=${FT_SLURM_DIR:?}
nodes=${NODES:-2}
port=${PORT:-26817}
netns=${NETNS:-0}
user=$(id -un)
host=$(hostname -s)
tag=ft$((port % 1000)) # names of namespaces and links: two clusters may run at a time
net=10.$((64 + port % 64)).$((port % 251))
PATH=$PATH:/usr/sbin:/sbin
export SLURM_CONF=$dir/slurm.conf

control=127.0.0.1 address=127.0.0.1 node_host=$host
if [ "$netns" = 1 ]; then
    control=$net.1 address="$net.[11-$((10 + nodes))]" node_host="n[1-$nodes]"
fi

say() { echo "slurm for tests: $*" >&2; }

wait_for() { # SECONDS COMMAND...
    local i seconds=$1
    shift
    for ((i = 0; i < seconds * 10; i++)); do
        if "$@" > /dev/null 2>&1; then return 0; fi
        sleep .1
    done
    say "waited in vain for: $*"
    return 1
}

gone() { [ ! -e "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"; }

idle() { [ "$(sinfo --noheader --Node --partition=main --format=%T | grep -c '^idle')" = "$nodes" ]; }

stop() { # PIDFILES...
    local file pid
    for file in "$@"; do
        [ -s "$file" ] || continue
        pid=$(< "$file")
        kill "$pid" 2> /dev/null || true
        wait_for 10 gone "$pid" || kill -9 "$pid" 2> /dev/null || true
        rm -f "$file"
    done
}

namespaces_up() {
    local i n
    ip link add "$tag" type bridge
    ip addr add "$net.1/24" dev "$tag"
    ip link set "$tag" up
    for ((n = 1; n <= nodes; n++)); do
        ip netns add "$tag-n$n"
        ip link add "$tag-v$n" type veth peer name eth0 netns "$tag-n$n"
        ip link set "$tag-v$n" master "$tag" up
        ip -n "$tag-n$n" addr add "$net.$((10 + n))/24" dev eth0
        ip -n "$tag-n$n" link set eth0 up
        ip -n "$tag-n$n" link set lo up
        mkdir -p "/etc/netns/$tag-n$n" # `ip netns exec` puts it over /etc/hosts
        {
            echo "127.0.0.1 localhost"
            echo "$net.1 $host"
            for ((i = 1; i <= nodes; i++)); do echo "$net.$((10 + i)) n$i"; done
        } > "/etc/netns/$tag-n$n/hosts"
    done
}

namespaces_down() {
    local n
    for ((n = 1; n <= nodes; n++)); do
        ip netns del "$tag-n$n" 2> /dev/null || true
        rm -rf "/etc/netns/$tag-n$n"
    done
    ip link del "$tag" 2> /dev/null || true
}

node_up() { # NAME
    mkdir -p "$dir/spool/$1"
    if [ "$netns" = 0 ]; then
        slurmd -N "$1"
    else
        ip netns exec "$tag-$1" unshare -u sh -c "hostname $1; exec slurmd -N $1"
    fi
}

configure() {
    cat > "$SLURM_CONF" << EOF
ClusterName=ft
SlurmctldHost=$host($control)
SlurmctldPort=$port
SlurmUser=$user
SlurmdUser=$user
AuthInfo=socket=$dir/run/munge.sock,cred_expire=10
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
SlurmdSpoolDir=$dir/spool/%n
StateSaveLocation=$dir/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MinJobAge=3600
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$dir/log/jobcomp.txt
NodeName=n[1-$nodes] NodeHostname=$node_host NodeAddr=$address Port=[$((port + 1))-$((port + nodes))] CPUs=8 RealMemory=16000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP DefMemPerCPU=100
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP DefMemPerCPU=100 PriorityTier=10
EOF
    # slurmd starts a cgroup plugin whatever is used: v1 needs no mount up to 23.11, "disabled" is
    # known from 24.05 on
    case $(slurmd -V) in
        *" 2"[0-3].*) echo CgroupPlugin=cgroup/v1 ;;
        *) echo CgroupPlugin=disabled ;;
    esac > "$dir/cgroup.conf"
}

up() {
    local n
    mkdir -p "$dir"/{run,log,state,spool,key}
    chmod 755 "$dir" "$dir/run"
    chmod 700 "$dir/key" "$dir/state"
    configure
    (umask 077 && head -c 128 /dev/urandom > "$dir/key/munge.key")
    munged --force --key-file="$dir/key/munge.key" --socket="$dir/run/munge.sock" \
        --pid-file="$dir/run/munged.pid" --log-file="$dir/log/munged.log" \
        --seed-file="$dir/key/seed"
    if [ "$netns" = 1 ]; then namespaces_up; fi
    slurmctld
    for ((n = 1; n <= nodes; n++)); do node_up "n$n"; done
    wait_for 20 idle
}

down() {
    timeout 5 scancel --user="$user" --signal=KILL --full 2> /dev/null || true
    timeout 5 scancel --user="$user" 2> /dev/null || true
    sleep 1
    stop "$dir"/run/slurmd-*.pid "$dir/run/slurmctld.pid" "$dir/run/munged.pid"
    if [ "$netns" = 1 ]; then namespaces_down; fi
}

case ${1:-} in
    up)
        trap 'say "it does not start, see $dir/log"' ERR
        up
        ;;
    down) down ;;
    crash) # everything that runs on the node is gone at once, as when its power is
        [ "$netns" = 1 ] || exit 3
        ip netns pids "$tag-$2" | xargs --no-run-if-empty kill -9
        ;;
    boot)
        rm -f "$dir/run/slurmd-$2.pid"
        node_up "$2"
        ;;
    env) echo "export SLURM_CONF=$SLURM_CONF" ;;
    *)
        say "usage: $0 up|down|env|crash NODE|boot NODE"
        exit 2
        ;;
esac
