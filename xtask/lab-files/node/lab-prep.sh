#!/bin/sh
# Runs once per boot, before containerd and the kubelet. /etc/lab-node gives
# ADDRESS, GATEWAY, POD_NET and ROUTES ("pod-net=node-address …").
. /etc/lab-node

# These are mounted read-only at boot; the kubelet and runc write there.
for mount_point in /sys/fs/cgroup/*/ /proc/sys /sys; do
    mountpoint -q "$mount_point" && mount -o remount,bind,rw "$mount_point" 2>/dev/null
done
[ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ] && mount -o remount,bind,rw /sys/fs/cgroup
mount --make-rshared /

sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0
ip link set lo up
ip link set host0 up
ip address replace "$ADDRESS/24" dev host0
ip route replace default via "$GATEWAY"
for route in $ROUTES; do
    ip route replace "${route%=*}" via "${route#*=}"
done

# Pods leave the pod network with the node's address; between pods nothing is translated.
masquerade="POSTROUTING -s $POD_NET ! -d $POD_NET -o host0 -j MASQUERADE"
# shellcheck disable=SC2086
iptables -w -t nat -C $masquerade 2>/dev/null || iptables -w -t nat -A $masquerade

touch /run/lab-ready
