//! Tries the accounting of sockets: loads and attaches the programs that do it, for a moment.

use std::path::Path;

use crate::{
    bpf::load::{Kernel, LoadOptions, NetOptions},
    host::btf,
    probe::net::NetProbe,
};

/// Sockets that there is room for: others are not accounted meanwhile.
const SOCKETS: u32 = 64;

/// # Errors
/// Why it cannot be done, in one line.
pub fn attempt(btf_path: &Path) -> Result<(), String> {
    let offsets = btf::task_offsets(btf_path).map_err(|error| error.to_string())?;
    let sched_offsets = btf::sched_offsets(btf_path).map_err(|error| error.to_string())?;
    let net_offsets = btf::net_offsets(btf_path).map_err(|error| error.to_string())?;
    let options = LoadOptions {
        net: Some(NetOptions {
            offsets: net_offsets,
            sched_offsets: Some(sched_offsets),
            sockets: SOCKETS,
            connecting: false,
        }),
        ..LoadOptions::new(offsets)
    };
    let mut kernel = Kernel::load(&options).map_err(|error| error.to_string())?;
    let mut probe = NetProbe::open(&mut kernel, SOCKETS, true).map_err(|error| error.to_string())?;
    probe.disable();
    Ok(())
}
