#!/usr/bin/env bash
# A SLURM of two nodes on this host, as root, for as long as a command runs:
#   tests/slurm_cluster.sh DIR COMMAND [ARGUMENT...]
# COMMAND finds it by SLURM_CONF; `bash` gives a shell to try things in. DIR is
# made, holds all of it, and goes at the end. Where SLURM cannot start, a line
# on stderr says why, and the status is 3. It touches neither /etc nor a SLURM
# or munge that runs already.
#
#   PYTHON   interpreter that looks for free ports [python3]
set -euo pipefail

say() { echo "slurm_cluster: $*" >&2; }
die() { say "$@"; exit 3; }

((EUID == 0)) || die "only root can start slurmd"
PATH=$PATH:/usr/sbin:/sbin
for program in munged slurmctld slurmd sbatch; do
  command -v "$program" >/dev/null || die "there is no $program here"
done
(($# >= 2)) || die "expected DIR COMMAND [ARGUMENT...]"
mkdir -p "$(dirname "$1")"
mkdir -m 755 "$1" || die "expected $1 not to be there"
directory=$(cd "$1" && pwd)
shift
# A Unix socket's path has at most 107 characters.
if ((${#directory} > 90)); then
  rmdir "$directory"
  die "the path is too long for a socket, 90 characters at most: $directory"
fi

daemons=()
runs() { kill -0 "$1" 2>/dev/null; }

# Waits until a command succeeds: within SECONDS COMMAND...
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

all_run() {
  local pid
  for pid in "${daemons[@]}"; do runs "$pid" || return 1; done
}
ready_or_over() { ! all_run || "$@"; }

nothing_queued() {
  local all
  all=$(timeout 5 squeue --noheader) && [[ -z $all ]]
}

stop() {
  trap '' TERM INT HUP
  if ((${#daemons[@]} == 4)) && all_run; then
    # What does not heed SIGTERM is killed after KillWait.
    timeout 10 scancel --user=root >/dev/null 2>&1 || true
    within 45 nothing_queued || say "jobs did not end within 45 s"
  fi
  # The last first: munged is what the others speak by.
  local i pid
  for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do
    pid=${daemons[i]}
    kill "$pid" 2>/dev/null || continue
    within 10 eval "! runs $pid" || kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$directory"
}
trap stop EXIT
trap 'exit 143' TERM HUP
trap 'exit 130' INT

# Starts a daemon; setsid, so that a terminal's ^C is for COMMAND alone.
start() {
  setsid "$@" </dev/null >>"$directory/daemons.log" 2>&1 &
  daemons+=("$!")
}

# Ends with the logs' last complaint, in one line.
failed() {
  local complaint
  complaint=$(cat "$directory"/*.log | grep -iE 'fatal|error|emergency' |
    grep -v mpi | tail -n 1) || true
  die "$1; ${complaint:-the logs say nothing}"
}

read -r port port1 port2 < <("${PYTHON:-python3}" -c '
import socket
all = [socket.socket() for _ in range(3)]
for one in all:
  one.bind(("", 0))
print(*(one.getsockname()[1] for one in all))
') || die "could not find free ports"

# A node's name is where others look for its processes, and no name but of this
# host is known here: so they are addresses, that only loopback has.
host=$(hostname -s)
export SLURM_CONF=$directory/slurm.conf
cat >"$SLURM_CONF" <<END
ClusterName=ptlr-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that is queued anew waits as long as a credential is good; 5 s are the
# least.
AuthInfo=socket=$directory/munge,cred_expire=5
StateSaveLocation=$directory/state
SlurmdSpoolDir=$directory/%n
SlurmctldPidFile=$directory/slurmctld.pid
SlurmdPidFile=$directory/%n.pid
SlurmctldLogFile=$directory/slurmctld.log
SlurmdLogFile=$directory/%n.log
# No cgroups: a container may not make any.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
JobRequeue=1
KillWait=30
# As a site may have it.
KillOnBadExit=1
# At once.
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# More CPUs than this host may have.
SlurmdParameters=config_overrides
NodeName=127.0.0.1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$port1 CPUs=16
NodeName=127.0.0.2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$port2 CPUs=16
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE
END
mkdir "$directory"/{state,127.0.0.1,127.0.0.2}
(umask 077 && head -c 128 /dev/urandom >"$directory/key")

start munged --foreground --force --socket="$directory/munge" \
  --key-file="$directory/key" --pid-file="$directory/munged.pid" \
  --log-file="$directory/munged.log" --seed-file="$directory/seed"
within 10 ready_or_over test -S "$directory/munge" && all_run ||
  failed "munged does not run"
start slurmctld -D
start slurmd -D -N 127.0.0.1
start slurmd -D -N 127.0.0.2
both_idle() {
  [[ $(timeout 5 sinfo --noheader --states=idle --format=%D) == 2 ]]
}
within 30 ready_or_over both_idle && all_run ||
  failed "the two nodes are not ready"

status=0
"$@" || status=$?
exit "$status"
