# How the script changes files: all of them or none, with a record of what they were. setup.sh comes behind it.

# make_dir PATH makes a folder and those above it, and notes them. All users may read it, as the files in it.
make_dir() {
  [ -n "$1" ] && [ ! -d "$root$1" ] || return 0
  make_dir "${1%/*}"
  (umask 022 && mkdir "$root$1") || fail "nothing has been changed: the folder $1 can't be made"
  say "$1" >>"$tmp/made"
}

# target_of PATH puts the place of a file into $target: where it leads to, if it is a link.
target_of() {
  target=$root$1
  [ ! -L "$target" ] || target=$(readlink -f "$target") || target=''
  [ -n "$target" ]
}

# beside NEW PATH writes a file beside its place, with the rights of the one that is there.
beside() {
  target_of "$2" && rm -f "$target.oci-proxy-setup" || return 1
  if [ -e "$target" ]; then
    cp -p "$target" "$target.oci-proxy-setup" || return 1
  fi
  cat "$1" >"$target.oci-proxy-setup" || return 1
  [ -e "$target" ] || chmod 644 "$target.oci-proxy-setup"
}

# place PATH puts the file beside it there, in one step.
place() { target_of "$1" && mv -f "$target.oci-proxy-setup" "$target"; }

# try_folder PATH reports whether files can be made in a folder. It never writes to what is there.
try_folder() {
  try=$root$1/.oci-proxy-setup
  rm -f "$try" && (set -C && : >"$try") 2>/dev/null && rm -f "$try"
}

# write makes all changes, or none: what is there is noted, and all is beside its place, before the first
# file changes. It ends by put_back if that fails, or if somebody stops it.
write() {
  : >"$tmp/made"
  rm -rf "$record.part" "$record.old" # of a run that was killed
  writing=yes
  paths=$(cd "$tmp/new" && find . -type f | sed 's/^\.//' | sort)
  for path in $paths; do
    make_dir "${path%/*}"
    try_folder "${path%/*}" || fail "nothing has been changed: ${path%/*} can't be written to; are you root?"
    beside "$tmp/new$path" "$path" || fail "nothing has been changed: $path can't be written"
  done
  make_dir "$dir"
  (umask 077 && keep) || fail "nothing has been changed: $record can't be written to"
  for path in $paths; do
    placed="$placed $path"
    place "$path" || fail "nothing has been changed: $path can't be written"
  done
  writing=
  rm -rf "$record.old"
}

# keep writes the record of $paths. The one before is in $record.old then.
keep() {
  if [ -d "$record" ]; then
    cp -Rp "$record" "$record.part" && mv "$record.part" "$record.old" || return 1
  fi
  for path in $paths; do
    mkdir -p "$record/after${path%/*}" "$record/before${path%/*}" && rm -f "$record/before$path" && cat "$tmp/new$path" >"$record/after$path" || return 1
    if [ -f "$tmp/old$path" ]; then
      cat "$tmp/old$path" >"$record/before$path" || return 1
    fi
  done
  cat "$tmp/made" >>"$record/made"
}

# put_back makes all as it was before the writing.
put_back() {
  writing=
  for path in $paths; do
    ! target_of "$path" || rm -f "$target.oci-proxy-setup"
  done
  for path in $placed; do
    if [ -f "$tmp/was$path" ]; then
      cmp -s "$tmp/was$path" "$root$path" || { beside "$tmp/was$path" "$path" && place "$path"; }
    else
      target_of "$path" && rm -f "$target"
    fi || {
      say "setup: $path can't be put back; $record has it as it was" >&2
      return 1
    }
  done
  if [ -d "$record.old" ]; then
    rm -rf "$record"
    mv "$record.old" "$record"
  elif [ -z "$kept" ]; then
    rm -rf "$record"
  fi
  rm -rf "$record.part"
  [ ! -f "$tmp/made" ] || sort -r "$tmp/made" | sweep
}

# sweep removes the empty ones of folders that setup made, a line each.
sweep() {
  while read -r path; do
    case $path in
      *..*) continue ;; # never one of setup's
      /*) ;;
      *) continue ;;
    esac
    if [ -z "$root" ] || ! linked "$path"; then
      rmdir "$root$path" 2>/dev/null || :
    fi
  done
}

# ended is what the script does last, however it ends.
ended() {
  trap '' HUP INT TERM
  [ -z "$writing" ] || put_back || :
  [ -z "$locked" ] || rm -f "$locked"
  rm -rf "$tmp"
}

# lock keeps all other setups of this machine from changing it, the program too. Where nothing can be
# written to /run, nobody is kept out.
lock() {
  lock=/run/oci-proxy-setup.lock tries=0
  [ -z "$root" ] || ! linked "$lock" || return 0
  until (set -C && : >"$root$lock") 2>/dev/null; do
    [ -e "$root$lock" ] || return 0
    [ "$tries" -lt 20 ] || fail "nothing has been changed: another setup is at work, or was killed: if none is, remove $root$lock"
    tries=$((tries + 1))
    sleep 1
  done
  locked=$root$lock
}

# take_back makes the changes of undo. If it fails, undo can be run again: the record is there until the end.
take_back() {
  writing=yes
  paths=$(cd "$tmp/new" && find . -type f | sed 's/^\.//')
  for path in $paths; do
    beside "$tmp/new$path" "$path" || fail "nothing has been changed: $path can't be written"
  done
  for path in $paths; do
    placed="$placed $path"
    place "$path" || fail "nothing has been changed: $path can't be written"
  done
  writing=
  for path in $gone; do
    target_of "$path" && rm -f "$target" || fail "$path can't be removed; nothing of the record is lost"
  done
  sort -r "$record/made" >"$tmp/made"
  rm -rf "$record"
  sweep <"$tmp/made"
}

