# shellcheck shell=bash
# Starts, watches and stops the processes of a run. Each is stopped by its own
# process id, and every wait has an end.

declare -A pids=() # by the name given to start

# start NAME COMMAND… runs a command in the background, with its output in
# $work/log/NAME. Do not call it in a subshell, which would lose the process id.
start() {
  local name=$1
  shift
  "$@" >>"$work/log/$name" 2>&1 </dev/null &
  pids[$name]=$!
}

# running NAME reports whether the process of that name still runs.
running() {
  [[ -n ${pids[$1]:-} ]] && kill -0 "${pids[$1]}" 2>/dev/null
}

# stop NAME [SIGNAL] ends a process and waits until it is gone. After 20 s it is
# killed. It is no error if there is no such process.
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

# within SECONDS COMMAND… tries a command until it succeeds, and fails after that
# time.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# answers PORT PATH reports whether an HTTP server answers there with success or asks
# for a login.
answers() {
  local status
  status=$(curl -s -o /dev/null -m 5 -w '%{http_code}' "http://127.0.0.1:$1$2")
  [[ $status == 200 || $status == 401 ]]
}

# clean_up ends all processes and removes the run's folder. It is for an EXIT trap.
clean_up() {
  local name mount
  for name in "${!pids[@]}"; do
    stop "$name"
  done
  # Engines leave mounts in their folders; unmount the innermost first.
  while read -r mount; do
    umount -l "$mount"
  done < <(awk -v under="$work/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort -r)
  rm -rf "$work"
}

# finds ARGUMENTS… is grep -q that reads all of its input, and shows it where nothing is found. grep -q
# itself stops at the first match, and then the program that still writes to it fails by chance.
finds() {
  local all
  all=$(cat)
  grep -q "$@" <<<"$all" || { printf '%s\n' "$all" && return 1; }
}
