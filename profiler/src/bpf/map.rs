//! Maps taken out of the object, and what fails with one.

use std::os::fd::AsFd as _;

use aya::{
    Ebpf,
    maps::{Map, MapData, MapError},
};

use super::BpfError;

/// Takes the map of that name out of the object, as a map of that kind.
///
/// # Errors
/// There is none, or it is of another kind.
pub fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, BpfError> {
    let map = ebpf.take_map(name).ok_or(BpfError::Missing(name))?;
    map.try_into().map_err(failed("open", name))
}

/// The same map once more, to be read beside the first one.
///
/// # Errors
/// Those of dup(2), and of asking for what it is.
pub fn again(map: &MapData, name: &'static str) -> Result<MapData, BpfError> {
    let fd = map.fd().as_fd().try_clone_to_owned();
    let fd = fd.map_err(|source| BpfError::Call { command: "dup", map: name, source })?;
    MapData::from_fd(fd).map_err(failed("open", name))
}

/// The error of an operation on a map.
pub fn failed(operation: &'static str, map: &'static str) -> impl Fn(MapError) -> BpfError {
    move |source| BpfError::Map { operation, map, source: Box::new(source) }
}

/// Whether an entry could not be removed because it is there no more: programs remove entries too.
pub fn is_gone(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}
