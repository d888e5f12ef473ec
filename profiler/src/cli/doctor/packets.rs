//! Tries to look at packets: loads and attaches the programs that do it, for a moment.

use std::path::Path;

use crate::{
    bpf::load::{Kernel, LoadOptions},
    host::{btf, network},
    probe::packets::PacketsProbe,
};

/// What is missing, in words.
///
/// # Errors
/// Why it cannot be done, in one line.
pub fn attempt(btf_path: &Path) -> Result<Vec<String>, String> {
    let offsets = btf::task_offsets(btf_path).map_err(|error| error.to_string())?;
    let namespaces = network::namespace().is_some();
    let packets = btf::packet_offsets(btf_path, namespaces).map_err(|error| error.to_string())?;
    let (drops, _) = btf::drops(btf_path).map_err(|error| error.to_string())?;
    let options = LoadOptions { packets: Some(packets), drops: Some(drops), ..LoadOptions::new(offsets) };
    let mut kernel = Kernel::load(&options).map_err(|error| error.to_string())?;
    let mut probe = PacketsProbe::open(&mut kernel).map_err(|error| error.to_string())?;
    probe.disable();
    let no_reasons = drops.reasons == 0;
    Ok(no_reasons
        .then(|| "drops have no reason: kernels say it since Linux 5.17".to_owned())
        .into_iter()
        .collect())
}
