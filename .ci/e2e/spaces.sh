# shellcheck shell=bash
# Makes hosts of network namespaces, on a switch that is one too, and removes them. It needs
# processes.sh. Set $switch to a name of this run before anything else; those of hosts begin
# with it.

spaces=()

# tidy ends all processes and removes the namespaces. It is for an EXIT trap.
tidy() {
  local one
  clean_up
  for one in "${spaces[@]}"; do
    ip netns del "$one" 2>/dev/null
  done
}

# space NAME makes a namespace.
space() { ip netns add "$1" && spaces+=("$1") && ip -n "$1" link set lo up; }

# make_switch ADDRESS/BITS makes the switch, with that address.
make_switch() {
  space "$switch" && ip -n "$switch" link add sw type bridge && ip -n "$switch" addr add "$1" dev sw && ip -n "$switch" link set sw up
}

# host N ADDRESS/BITS… makes the namespace of host N, with these addresses on the switch.
host() {
  local ns=$switch-$1 address
  space "$ns" && ip -n "$switch" link add "v$1" type veth peer name eth0 netns "$ns" &&
    ip -n "$switch" link set "v$1" master sw up && ip -n "$ns" link set eth0 up || return 1
  for address in "${@:2}"; do
    ip -n "$ns" addr add "$address" dev eth0 || return 1
  done
}

# on N COMMAND… runs a command on host N.
on() { ip netns exec "$switch-$1" "${@:2}"; }
