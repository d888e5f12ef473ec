//! What tells of packets: members of `sk_buff` and of what it points to, and what the kernel's reasons for a drop are
//! called.

use std::{collections::BTreeMap, path::Path};

use profiler_common::probe::packets::{DropConfig, NO_REASON, PacketOffsets};

use super::{
    BtfError, member_offsets,
    walk::{KIND_ENUM, KIND_TYPEDEF, Type, Walker},
};

/// What the names of reasons begin with; what is behind it says enough.
const PREFIXES: [&str; 4] = ["SKB_DROP_REASON_", "SKB_", "__", "MAC80211_"];

/// Values read of one enumeration; `skb_drop_reason` has some 120.
const MAX_REASONS: usize = 4096;

/// Names of `enum skb_drop_reason`, and of the subsystems that have reasons of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DropReasons {
    names: BTreeMap<u32, String>,
    subsystems: BTreeMap<u32, String>,
}

impl DropReasons {
    /// The name of a reason: `NO_SOCKET`; of a subsystem's own reason the subsystem's name and a number: `OPENVSWITCH:7`; of
    /// one without name the number. `None`: the kernel did not say.
    pub fn name(&self, reason: u32) -> Option<String> {
        if reason == NO_REASON {
            return None;
        }
        let (subsystem, number) = (reason >> 16, reason & 0xffff);
        Some(match (self.names.get(&reason), self.subsystems.get(&subsystem)) {
            (Some(name), _) => name.clone(),
            (None, Some(name)) if subsystem != 0 => format!("{name}:{number}"),
            (None, _) => format!("{reason:#x}"),
        })
    }

    /// The reason of that name, else [`NO_REASON`].
    fn value(&self, name: &str) -> u32 {
        self.names.iter().find(|(_, known)| *known == name).map_or(NO_REASON, |(&value, _)| value)
    }
}

/// The members that the programs read. `namespaces`: interfaces are in some.
///
/// # Errors
/// [`BtfError`]. Packets cannot be looked at then.
pub fn packet_offsets(path: &Path, namespaces: bool) -> Result<PacketOffsets, BtfError> {
    let [skb_dev, skb_len, skb_protocol, skb_head, skb_data, skb_mac_header] = member_offsets(
        path,
        "sk_buff",
        [&["dev"], &["len"], &["protocol"], &["head"], &["data"], &["mac_header"]],
    )?;
    let [dev_ifindex, dev_name, dev_net, dev_tx] =
        member_offsets(path, "net_device", [&["ifindex"], &["name"], &["nd_net"], &["_tx"]])?;
    let [tx_qdisc] = member_offsets(path, "netdev_queue", [&["qdisc"]])?;
    let [qdisc_enqueue] = member_offsets(path, "Qdisc", [&["enqueue"]])?;
    let [napi_dev] = member_offsets(path, "napi_struct", [&["dev"]])?;
    let net_inum = if namespaces {
        let [ns] = member_offsets(path, "net", [&["ns"]])?;
        let [inum] = member_offsets(path, "ns_common", [&["inum"]])?;
        ns + inum
    } else {
        0
    };
    Ok(PacketOffsets {
        skb_dev,
        skb_len,
        skb_protocol,
        skb_head,
        skb_data,
        skb_mac_header,
        dev_ifindex,
        dev_name,
        dev_net,
        net_inum,
        dev_tx,
        tx_qdisc,
        qdisc_enqueue,
        napi_dev,
        namespaces: u32::from(namespaces),
    })
}

/// What the kernel says of a dropped packet, and its reasons.
///
/// # Errors
/// [`BtfError`]. Drops cannot be looked at then.
pub fn drops(path: &Path) -> Result<(DropConfig, DropReasons), BtfError> {
    let reasons = drop_reasons(path)?;
    let (says_why, says_whose) = says(path)?;
    let config = DropConfig {
        reasons: says_why.into(),
        receiver: says_whose.into(),
        consumed: reasons.value("CONSUMED"),
        not_dropped: reasons.value("NOT_DROPPED_YET"),
    };
    Ok((config, reasons))
}

/// Whether the third argument of the tracepoint `kfree_skb` is the reason: since Linux 5.17 (c504e5c2f964); and whether the
/// fourth is the socket that was to have it: since 6.11 (c53795d48ee8).
fn says(path: &Path) -> Result<(bool, bool), BtfError> {
    let mut walker = Walker::open(path)?;
    let names = walker.positions_of(&["btf_trace_kfree_skb", "skb_drop_reason"])?;
    let typedef = walker.with_data(|_, ty| ty.kind == KIND_TYPEDEF && names[0].contains(&ty.name))?;
    let reason = walker.find(|_, ty| is_enumeration(ty, &names[1]))?;
    let neither = Ok((false, false));
    let (Some((_, typedef, _)), Some(reason)) = (typedef, reason) else { return neither };
    let Some((_, pointer, _)) = walker.with_data(|id, _| id == typedef.target())? else { return neither };
    let Some((_, _, parameters)) = walker.with_data(|id, _| id == pointer.target())? else { return neither };
    // `{name, type}` each; the first is the probe's own data.
    let mut parameters = parameters.chunks_exact(8).skip(3);
    let says_why = parameters.next().is_some_and(|parameter| word(parameter, 4) == reason);
    Ok((says_why, says_why && parameters.next().is_some()))
}

fn is_enumeration(ty: &Type, names: &[u32]) -> bool {
    ty.kind == KIND_ENUM && ty.len > 0 && names.contains(&ty.name)
}

/// The names of reasons; none if the kernel has none.
fn drop_reasons(path: &Path) -> Result<DropReasons, BtfError> {
    let mut walker = Walker::open(path)?;
    let enumerations =
        ["skb_drop_reason", "skb_drop_reason_subsys", "mac80211_drop_reason", "ovs_drop_reason"];
    let positions = walker.positions_of(&enumerations)?;
    let mut reasons = DropReasons::default();
    for (enumeration, positions) in enumerations.iter().zip(&positions) {
        let Some((_, _, values)) = walker.with_data(|_, ty| is_enumeration(ty, positions))? else { continue };
        // `{name, value}` each.
        for value in values.chunks_exact(8).take(MAX_REASONS) {
            let full = walker.string(word(value, 0))?;
            let number = word(value, 4);
            if *enumeration == "skb_drop_reason_subsys" {
                let name = full.strip_prefix("SKB_DROP_REASON_SUBSYS_").unwrap_or(&full);
                reasons.subsystems.entry(number).or_insert_with(|| name.to_owned());
            } else {
                let name = PREFIXES.iter().find_map(|prefix| full.strip_prefix(prefix)).unwrap_or(&full);
                reasons.names.entry(number).or_insert_with(|| name.to_owned());
            }
        }
    }
    Ok(reasons)
}

/// The number at `at`; 0 behind the end.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |word| u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::{super::VMLINUX, *};

    #[test]
    fn reasons_have_names_or_numbers() {
        let named = |pairs: &[(u32, &str)]| pairs.iter().map(|&(n, name)| (n, name.to_owned())).collect();
        let reasons =
            DropReasons { names: named(&[(3, "NO_SOCKET")]), subsystems: named(&[(0, "CORE"), (3, "OVS")]) };
        let name = |reason| reasons.name(reason);
        assert_eq!(name(3).as_deref(), Some("NO_SOCKET"));
        assert_eq!(name(0x3_0007).as_deref(), Some("OVS:7"));
        assert_eq!(name(99).as_deref(), Some("0x63"));
        assert_eq!(name(NO_REASON), None);
        assert_eq!((reasons.value("NO_SOCKET"), reasons.value("none such")), (3, NO_REASON));
    }

    #[test]
    fn the_running_kernel_tells_of_packets() {
        if !Path::new(VMLINUX).exists() {
            return;
        }
        let offsets = packet_offsets(Path::new(VMLINUX), true).unwrap();
        assert!(offsets.skb_data > 0 && offsets.net_inum > 0);
        let (drops, reasons) = drops(Path::new(VMLINUX)).unwrap();
        assert_eq!(drops.reasons != 0, !reasons.names.is_empty());
        assert!(drops.reasons != 0 || drops.receiver == 0);
        if drops.reasons != 0 {
            assert_ne!(reasons.value("NO_SOCKET"), NO_REASON);
            assert_ne!(reasons.value("NOT_SPECIFIED"), NO_REASON);
        }
    }
}
