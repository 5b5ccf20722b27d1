# PID 1 of a node: makes the node's own view of the machine, says on descriptor 3
# that it stands, and reaps what is orphaned.
#   init.sh HOSTNAME DISK [bind SOURCE TARGET rw|ro]... [sysctl PATH VALUE]...
set -eu
read -r pid _ </proc/self/stat # still the host's /proc: the host's number of this process
hostname=$1 disk=$2
shift 2

# What the node writes must stay its own, also where it makes new mount points.
mount -n -t tmpfs tmpfs "$disk/layer"
cd "$disk/layer"
mkdir upper work root
mount -n -t overlay overlay -o "lowerdir=/,upperdir=$disk/layer/upper,workdir=$disk/layer/work" root
cd root
mkdir -p .host
pivot_root . .host
cd /

mount -n -t proc proc /proc
mount -n -t sysfs sysfs /sys
[ ! -d /.host/sys/fs/cgroup ] || mount -n --rbind /.host/sys/fs/cgroup /sys/fs/cgroup
mount -n --rbind /.host/dev /dev
mount -n -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -n -t tmpfs -o mode=755 tmpfs /run
mount -n -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -p /run/lock /run/netns
[ -L /var/run ] || mount -n --bind /run /var/run
mount -n --bind "/.host$disk/lib" /var/lib
mount -n --bind "/.host$disk/log" /var/log
echo "$hostname" >/proc/sys/kernel/hostname
ip link set lo up

while [ $# -gt 0 ]; do
	case $1 in
	bind)
		if [ -d "/.host$2" ]; then
			mkdir -p "$3"
		else
			mkdir -p "$(dirname "$3")"
			[ -e "$3" ] || : >"$3"
		fi
		mount -n --bind -o "$4" "/.host$2" "$3"
		shift 4
		;;
	sysctl)
		echo "$3" >"/proc/sys/$2"
		shift 3
		;;
	esac
done
umount -n -l /.host
rmdir /.host
mount -n --make-rshared /

echo "$pid" >&3
exec 3>&-
while :; do
	sleep infinity &
	wait $!
done
