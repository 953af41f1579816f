# shellcheck shell=bash
# Starting, watching and stopping of what a run needs. Everything that starts
# is stopped by its own process id; every wait has an end.

declare -A pids=() # by the name given to start

# start NAME COMMAND…: runs a command in the background, its output in
# $work/log/NAME. Not to be called in a subshell, which would forget the id.
start() {
  local name=$1
  shift
  "$@" >>"$work/log/$name" 2>&1 </dev/null &
  pids[$name]=$!
}

# running NAME: whether what was started under that name still runs.
running() {
  [[ -n ${pids[$1]:-} ]] && kill -0 "${pids[$1]}" 2>/dev/null
}

# stop NAME [SIGNAL]: ends a process and waits until it is gone; what has not
# obeyed after 20 s is killed. Nothing to stop is fine.
stop() {
  local pid=${pids[$1]:-} signal=${2:-TERM} tries
  [[ -n $pid ]] || return 0
  unset "pids[$1]"
  kill -"$signal" "$pid" 2>/dev/null
  for ((tries = 0; tries < 200; tries++)); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null
  wait "$pid" 2>/dev/null
  return 0
}

# within SECONDS COMMAND…: tries a command until it succeeds, and fails when it
# has not after that time.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# answers PORT PATH: whether an HTTP server answers there with success, or asks
# who we are.
answers() {
  local status
  status=$(curl -s -o /dev/null -m 5 -w '%{http_code}' "http://127.0.0.1:$1$2")
  [[ $status == 200 || $status == 401 ]]
}

# clean_up ends all that runs and removes the run's folder. For an EXIT trap.
clean_up() {
  local name mount
  for name in "${!pids[@]}"; do
    stop "$name"
  done
  # Engines leave mounts inside their folders; the innermost goes first.
  while read -r mount; do
    umount -l "$mount"
  done < <(awk -v under="$work/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort -r)
  rm -rf "$work"
}
