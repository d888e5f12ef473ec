//! Inner maps for a map-in-map, described by BTF as the template in the object is.
//!
//! The kernel takes an inner map only if it is like the template that the outer map was made with. From 5.15 to 6.1 that
//! includes whether BTF describes them: `bpf_map_meta_equal` compares `timer_off`, which is -ENOENT in a map whose BTF
//! has no timer and -EINVAL in a map without BTF (`map_create` and `map_check_btf`, kernel/bpf/syscall.c). aya describes
//! the template and nothing that it makes outside an object. What the description says is not compared, so ours says
//! no more than the sizes.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
};

use super::BpfError;

/// `enum bpf_cmd`, include/uapi/linux/bpf.h.
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_BTF_LOAD: libc::c_long = 18;

/// `enum bpf_map_type`.
const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_MAP_TYPE_ARRAY: u32 = 2;

/// `union bpf_attr`, the part for creating maps.
#[repr(C)]
#[derive(Default)]
struct MapCreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
    map_ifindex: u32,
    btf_fd: u32,
    btf_key_type_id: u32,
    btf_value_type_id: u32,
}

const _: () = assert!(size_of::<MapCreateAttr>() == 60);

/// `union bpf_attr`, the part for loading BTF.
#[repr(C)]
#[derive(Default)]
struct BtfLoadAttr {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
    padding: u32,
}

const _: () = assert!(size_of::<BtfLoadAttr>() == 32);

/// Makes a hash map for a slot of the outer map `name`.
pub fn hash_map<K: Pod, V: Pod>(
    name: &'static str,
    entries: u32,
    flags: u32,
) -> Result<HashMap<MapData, K, V>, BpfError> {
    let sizes = (size_of::<K>() as u32, size_of::<V>() as u32);
    let data = create(name, BPF_MAP_TYPE_HASH, sizes, entries, flags)?;
    Map::HashMap(data).try_into().map_err(|source| unusable(name, source))
}

/// Makes an array for a slot of the outer map `name`.
pub fn array<V: Pod>(name: &'static str, entries: u32, flags: u32) -> Result<Array<MapData, V>, BpfError> {
    let sizes = (size_of::<u32>() as u32, size_of::<V>() as u32);
    let data = create(name, BPF_MAP_TYPE_ARRAY, sizes, entries, flags)?;
    Map::Array(data).try_into().map_err(|source| unusable(name, source))
}

fn unusable(map: &'static str, source: MapError) -> BpfError {
    BpfError::Map { operation: "use an inner map of", map, source: Box::new(source) }
}

fn create(
    name: &'static str,
    map_type: u32,
    (key_size, value_size): (u32, u32),
    max_entries: u32,
    map_flags: u32,
) -> Result<MapData, BpfError> {
    let description = description(key_size, value_size);
    let load = BtfLoadAttr {
        btf: description.as_ptr().addr() as u64,
        btf_size: description.len() as u32,
        ..Default::default()
    };
    let btf = bpf(BPF_BTF_LOAD, &load).map_err(|source| BpfError::Call {
        command: "BPF_BTF_LOAD",
        map: name,
        source,
    })?;
    let mut map_name = [0; 16];
    // The last byte stays 0.
    for (to, from) in map_name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    let attr = MapCreateAttr {
        map_type,
        key_size,
        value_size,
        max_entries,
        map_flags,
        map_name,
        btf_fd: btf.as_raw_fd() as u32,
        btf_key_type_id: if key_size == INDEX_SIZE { INDEX } else { KEY },
        btf_value_type_id: VALUE,
        ..Default::default()
    };
    let map = bpf(BPF_MAP_CREATE, &attr).map_err(|source| BpfError::Call {
        command: "BPF_MAP_CREATE",
        map: name,
        source,
    })?;
    MapData::from_fd(map).map_err(|source| unusable(name, source))
}

fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is the command's part of union bpf_attr (sizes asserted above) with its exact size; what it points to
    // outlives the call. The kernel only reads: no log buffer is given.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    match i32::try_from(fd) {
        // SAFETY: the commands used here return a new descriptor, which nothing else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Types in [`description`]. Keys of arrays must be integers of four bytes (`array_map_check_btf`,
/// kernel/bpf/arraymap.c), other keys and values can be arrays of bytes.
const BYTE: u32 = 1;
const INDEX: u32 = 2;
const KEY: u32 = 3;
const VALUE: u32 = 4;

const INDEX_SIZE: u32 = 4;

/// `BTF_KIND_INT` and `BTF_KIND_ARRAY`, include/uapi/linux/btf.h.
const INT: u32 = 1;
const ARRAY: u32 = 3;

/// BTF with a type of each size.
fn description(key_size: u32, value_size: u32) -> Vec<u8> {
    const HEADER: u32 = 24;
    // Offset 1 of the strings is the only name.
    let strings = b"\0t\0";
    let int = |bytes: u32| [1, INT << 24, bytes, 8 * bytes];
    let bytes = |len: u32| [0, ARRAY << 24, 0, BYTE, INDEX, len];
    let mut types: Vec<u32> = Vec::new();
    types.extend(int(1));
    types.extend(int(INDEX_SIZE));
    types.extend(bytes(key_size));
    types.extend(bytes(value_size));
    let types_len = 4 * types.len() as u32;

    let mut btf = Vec::new();
    // Magic number, version 1, no flags.
    btf.extend(0xeb9f_u16.to_ne_bytes());
    btf.extend([1, 0]);
    let (type_off, str_off) = (0, types_len);
    for field in [HEADER, type_off, types_len, str_off, strings.len() as u32] {
        btf.extend(field.to_ne_bytes());
    }
    types.iter().for_each(|word| btf.extend(word.to_ne_bytes()));
    btf.extend(strings);
    btf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_btf_with_the_sizes_asked_for() {
        let btf = btf_rs::Btf::from_bytes(&description(40, 2072)).unwrap();
        for (id, len) in [(KEY, 40), (VALUE, 2072)] {
            let btf_rs::Type::Array(array) = btf.resolve_type_by_id(id).unwrap() else { panic!("no array") };
            assert_eq!(array.len(), len);
        }
    }

    #[test]
    fn an_index_is_an_integer_of_four_bytes() {
        let btf = btf_rs::Btf::from_bytes(&description(4, 8)).unwrap();
        let btf_rs::Type::Int(index) = btf.resolve_type_by_id(INDEX).unwrap() else { panic!("no integer") };
        assert_eq!(index.size(), INDEX_SIZE as usize);
    }
}
