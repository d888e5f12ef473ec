//! Inner maps for a map-in-map, described by BTF as the template in the object is.
//!
//! The kernel takes an inner map only if it is like the template that the outer map was made with. From 5.15 to 6.1 that
//! includes what BTF says of timers: `bpf_map_meta_equal` compares `timer_off`, which is -ENOENT if BTF describes the
//! value as a structure without timer, and -EINVAL if it is no structure or there is no BTF (`map_create` in
//! kernel/bpf/syscall.c, `btf_find_field` in kernel/bpf/btf.c). aya describes the template and nothing that it makes
//! outside an object. Nothing else of the description is compared, so ours says no more than the sizes.

use std::{
    any::TypeId,
    os::fd::{AsRawFd as _, OwnedFd},
};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use rustix::{
    io::Errno,
    process::{Resource, Rlimit, setrlimit},
};

use super::BpfError;
use crate::host::bpf::{self, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH, MapCreate};

/// Makes a hash map for a slot of the outer map `name`.
pub fn hash_map<K: Pod, V: Pod>(
    name: &'static str,
    entries: u32,
    flags: u32,
) -> Result<HashMap<MapData, K, V>, BpfError> {
    let attr = MapCreate {
        map_type: BPF_MAP_TYPE_HASH,
        key_size: size_of::<K>() as u32,
        max_entries: entries,
        map_flags: flags,
        btf_key_type_id: KEY,
        ..Default::default()
    };
    Map::HashMap(create::<V>(name, attr)?).try_into().map_err(|source| unusable(name, source))
}

/// Makes an array for a slot of the outer map `name`.
pub fn array<V: Pod>(name: &'static str, entries: u32, flags: u32) -> Result<Array<MapData, V>, BpfError> {
    let attr = MapCreate {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: size_of::<u32>() as u32,
        max_entries: entries,
        map_flags: flags,
        // Anything but an integer is refused (`array_map_check_btf`, kernel/bpf/arraymap.c).
        btf_key_type_id: INDEX,
        ..Default::default()
    };
    Map::Array(create::<V>(name, attr)?).try_into().map_err(|source| unusable(name, source))
}

fn unusable(map: &'static str, source: MapError) -> BpfError {
    BpfError::Map { operation: "use an inner map of", map, source: Box::new(source) }
}

fn create<V: Pod>(name: &'static str, attr: MapCreate) -> Result<MapData, BpfError> {
    let failed = |command| move |source: Errno| BpfError::Call { command, map: name, source: source.into() };
    let value_size = size_of::<V>() as u32;
    let btf = bpf::load_btf(&description(attr.key_size, value_size)).map_err(failed("BPF_BTF_LOAD"))?;
    let mut map_name = [0; 16];
    // The last byte stays 0.
    for (to, from) in map_name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    let attr = MapCreate {
        value_size,
        map_name,
        btf_fd: btf.as_raw_fd() as u32,
        btf_value_type_id: if is_structure::<V>() { STRUCTURE } else { VALUE },
        ..attr
    };
    let map = with_raised_limit(|| bpf::create(&attr)).map_err(failed("BPF_MAP_CREATE"))?;
    MapData::from_fd(map).map_err(|source| unusable(name, source))
}

/// Whether the template's BTF has a structure for this type of values: all but integers are one.
fn is_structure<V: 'static>() -> bool {
    let integers = [TypeId::of::<u8>(), TypeId::of::<u16>(), TypeId::of::<u32>(), TypeId::of::<u64>()];
    !integers.contains(&TypeId::of::<V>())
}

/// Once more without a limit of locked memory, which maps count against before Linux 5.11. aya does the same for its own;
/// which map is the first that does not fit depends on their sizes.
fn with_raised_limit(call: impl Fn() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    let result = call();
    let refused = matches!(result, Err(Errno::PERM));
    let unlimited = Rlimit { current: None, maximum: None };
    if refused && setrlimit(Resource::Memlock, unlimited).is_ok() { call() } else { result }
}

/// Types in [`description`].
const BYTE: u32 = 1;
const INDEX: u32 = 2;
const KEY: u32 = 3;
const VALUE: u32 = 4;
const STRUCTURE: u32 = 5;

/// `BTF_KIND_INT` and so on, include/uapi/linux/btf.h.
const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;

/// BTF of an index, and of a key and a value of some bytes, the latter also as a structure.
fn description(key_size: u32, value_size: u32) -> Vec<u8> {
    const HEADER: u32 = 24;
    // Offset 0 is no name, 1 the name of the integers.
    let strings = b"\0i\0";
    let int = |bytes: u32| [1, INT << 24, bytes, 8 * bytes];
    let bytes = |len: u32| [0, ARRAY << 24, 0, BYTE, INDEX, len];
    let mut types: Vec<u32> = Vec::new();
    types.extend(int(1));
    types.extend(int(4));
    types.extend(bytes(key_size));
    types.extend(bytes(value_size));
    // One member: without name, its type, at offset 0.
    types.extend([0, (STRUCT << 24) | 1, value_size, 0, VALUE, 0]);
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
        let btf_rs::Type::Struct(value) = btf.resolve_type_by_id(STRUCTURE).unwrap() else {
            panic!("no structure")
        };
        assert_eq!(value.size(), 2072);
        assert_eq!(value.members.len(), 1);
    }

    #[test]
    fn structures_are_told_from_integers() {
        assert!(is_structure::<profiler_common::sample::CountValue>());
        assert!(!is_structure::<u64>());
    }
}
