//! BTF made by hand, valid and hostile, and the running kernel's.

use std::{io::Write, path::Path};

use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::{walk::KIND_TYPEDEF, *};

const INT: u32 = 1;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FLAG: u32 = 1 << 31;

/// Writes BTF files, type by type.
#[derive(Default)]
struct Builder {
    types: Vec<u32>,
    strings: Vec<u8>,
    count: u32,
    layout: Option<Vec<u8>>,
}

impl Builder {
    fn new() -> Self {
        Self { strings: vec![0], ..Self::default() }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        at
    }

    /// A type with its data words; yields its id.
    fn ty(&mut self, name: &str, kind_and_flag: u32, len: u32, data: &[u32]) -> u32 {
        let name = self.name(name);
        let (kind, flag) = (kind_and_flag & !FLAG, kind_and_flag & FLAG);
        self.types.extend([name, kind << 24 | len | flag, 0]);
        self.types.extend(data);
        self.count += 1;
        self.count
    }

    fn structure(&mut self, name: &str, kind_and_flag: u32, members: &[(&str, u32, u32)]) -> u32 {
        let data: Vec<u32> = members.iter().flat_map(|&(n, ty, offset)| [self.name(n), ty, offset]).collect();
        self.ty(name, kind_and_flag, members.len() as u32, &data)
    }

    fn bytes(&self) -> Vec<u8> {
        let types: Vec<u8> = self.types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut out = Vec::from(0xeb9fu16.to_ne_bytes());
        out.extend([1, 0]);
        let (types_len, strings_len) = (types.len() as u32, self.strings.len() as u32);
        let mut words =
            vec![if self.layout.is_some() { 32 } else { 24 }, 0, types_len, types_len, strings_len];
        if let Some(layout) = &self.layout {
            words.extend([types_len + strings_len, layout.len() as u32]);
        }
        out.extend(words.iter().flat_map(|word: &u32| word.to_ne_bytes()));
        out.extend(types);
        out.extend(&self.strings);
        out.extend(self.layout.iter().flatten());
        out
    }

    fn file(&self) -> NamedTempFile {
        write(&self.bytes())
    }
}

fn write(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// A task_struct behind one type of every kind, so that a wrong length of any kind misplaces it.
fn kernel_like() -> Builder {
    let mut b = Builder::new();
    let int = b.ty("int", INT, 0, &[32]);
    b.ty("", 2, 0, &[]); // pointer
    b.ty("", 3, 0, &[int, int, 4]); // array
    b.structure("list_head", STRUCT, &[("next", 2, 0), ("prev", 2, 64)]);
    b.structure("u", UNION, &[("pid", int, 0)]);
    b.ty("e", 6, 2, &[1, 0, 1, 1]); // enum
    b.ty("fwd", 7, 0, &[]);
    b.ty("pid_t", 8, 0, &[]); // typedef
    for qualifier in 9..=11 {
        b.ty("", qualifier, 0, &[]);
    }
    b.ty("tgid", 12, 0, &[]); // a function that is called like a member
    b.ty("", 13, 2, &[0, 1, 0, 1]); // prototype
    b.ty("v", 14, 0, &[1]); // variable
    b.ty(".data", 15, 1, &[1, 0, 8]); // section
    b.ty("float", 16, 0, &[]);
    b.ty("tag", 17, 0, &[0]); // declaration tag
    b.ty("user", 18, 0, &[]); // type tag
    b.ty("e64", 19, 1, &[1, 2, 3]); // 64-bit enum
    b.ty("task_struct", 7, 0, &[]); // forward declaration of the name
    b
}

fn task_members(b: &mut Builder, start: &str) {
    b.structure(
        "task_struct",
        STRUCT,
        &[
            ("pid", 1, 64),
            ("tgid", 1, 96),
            ("group_leader", 2, 128),
            (start, 1, 192),
            ("self_exec_id", 1, 256),
            ("stack", 2, 320),
            ("flags", 1, 384),
        ],
    );
    b.structure("other", STRUCT, &[("pid", 1, 8)]);
}

fn values(o: &TaskOffsets) -> [u32; 8] {
    [o.known, o.pid, o.tgid, o.group_leader, o.start_boottime, o.self_exec_id, o.stack, o.flags]
}

#[test]
fn offsets_behind_one_type_of_every_kind() {
    let mut b = kernel_like();
    task_members(&mut b, "start_boottime");
    assert_eq!(values(&task_offsets(b.file().path()).unwrap()), [1, 8, 12, 16, 24, 32, 40, 48]);
}

#[test]
fn the_older_member_name_is_found() {
    let mut b = kernel_like();
    task_members(&mut b, "real_start_time");
    assert_eq!(task_offsets(b.file().path()).unwrap().start_boottime, 24);
}

#[test]
fn a_missing_member_is_named_and_nothing_is_guessed() {
    let mut b = kernel_like();
    task_members(&mut b, "begin");
    let error = task_offsets(b.file().path()).err().unwrap().to_string();
    assert!(error.ends_with("`task_struct` has no member `start_boottime|real_start_time`"), "{error}");
}

#[test]
fn the_preferred_name_wins_over_the_order_of_members() {
    let mut b = Builder::new();
    b.structure("s", STRUCT, &[("old", 1, 0), ("new", 1, 32)]);
    assert_eq!(member_offsets(b.file().path(), "s", [&["new", "old"]]).unwrap(), [4]);
}

#[test]
fn members_of_anonymous_structures_count_from_the_outermost() {
    // As with CONFIG_RANDSTRUCT, and one level deeper; forward and backward references.
    let mut b = Builder::new();
    let inner = b.structure("", UNION, &[("deep", 1, 0)]);
    b.structure("s", STRUCT, &[("first", 1, 0), ("", inner + 2, 64)]);
    b.structure("", STRUCT, &[("x", 1, 0), ("", inner, 128)]);
    let file = b.file();
    assert_eq!(member_offsets(file.path(), "s", [&["deep"], &["first"], &["x"]]).unwrap(), [24, 0, 8]);
}

#[test]
fn a_cycle_of_anonymous_structures_ends() {
    let mut b = Builder::new();
    b.structure("s", STRUCT, &[("", 1, 64), ("", 1, 128)]);
    assert!(matches!(member_offsets(b.file().path(), "s", [&["x"]]), Err(BtfError::NoMember { .. })));
}

#[test]
fn bit_fields_have_no_byte_offset() {
    let mut b = Builder::new();
    b.structure("s", STRUCT | FLAG, &[("bits", 1, 3 << 24 | 8), ("whole", 1, 64)]);
    let file = b.file();
    assert_eq!(member_offsets(file.path(), "s", [&["whole"]]).unwrap(), [8]);
    assert!(matches!(member_offsets(file.path(), "s", [&["bits"]]), Err(BtfError::NoMember { .. })));
}

#[test]
fn names_that_share_their_end_are_found() {
    let mut b = Builder::new();
    let outer = b.name("xtask");
    b.types.extend([outer + 1, STRUCT << 24 | 1, 0, outer + 2, 1, 32]);
    assert_eq!(member_offsets(b.file().path(), "task", [&["ask"]]).unwrap(), [4]);
}

#[test]
fn a_name_is_found_behind_many_that_end_alike() {
    let mut b = Builder::new();
    for i in 0..100 {
        b.name(&format!("{i}_stack"));
    }
    b.structure("s", STRUCT, &[("stack", 1, 16)]);
    assert_eq!(member_offsets(b.file().path(), "s", [&["stack"]]).unwrap(), [2]);
}

#[test]
fn sizes_are_found_and_members_may_be_missing() {
    let mut b = Builder::new();
    b.structure("s", STRUCT, &[("m", 1, 64)]);
    let size = b.types.len() - 3 - 1;
    b.types[size] = 168;
    let file = b.file();
    assert_eq!(size_and_offsets(file.path(), "s", ["x", "m"]).unwrap(), (168, [None, Some(8)]));
    assert!(matches!(size_and_offsets(file.path(), "t", ["x"]), Err(BtfError::NoStructure { .. })));
}

#[test]
fn newer_kinds_are_stepped_over_by_the_files_own_layout() {
    let mut b = Builder::new();
    b.ty("", 0x21, 2, &[0, 1, 2, 3, 4]);
    b.structure("s", STRUCT, &[("m", 1, 80)]);
    assert!(matches!(
        member_offsets(b.file().path(), "s", [&["m"]]),
        Err(BtfError::UnknownKind { kind: 0x21, .. })
    ));
    let mut layout = vec![0; 0x22 * 4];
    layout[0x21 * 4..][..2].copy_from_slice(&[4, 8]);
    b.layout = Some(layout);
    assert_eq!(member_offsets(b.file().path(), "s", [&["m"]]).unwrap(), [10]);
}

#[test]
fn more_than_65535_members_are_counted() {
    let mut b = Builder::new();
    let data = vec![0; 70_000 * 2];
    b.ty("huge", 6, 70_000, &data);
    b.structure("s", STRUCT, &[("m", 1, 8)]);
    assert_eq!(member_offsets(b.file().path(), "s", [&["m"]]).unwrap(), [1]);
}

#[test]
fn typedefs_have_ids() {
    let b = kernel_like();
    assert_eq!(KIND_TYPEDEF, 8);
    assert_eq!(typedef_id(b.file().path(), "pid_t").unwrap(), 8);
    assert!(typedef_id(b.file().path(), "tgid").is_err());
}

#[test]
fn what_is_not_btf_is_refused_with_a_reason() {
    let error = |bytes: &[u8]| task_offsets(write(bytes).path()).err().unwrap();
    assert!(matches!(error(b""), BtfError::Malformed { what: "no BTF header", .. }));
    assert!(matches!(error(&[0x7f; 100]), BtfError::Malformed { what: "no BTF header", .. }));
    let missing = task_offsets(Path::new("/none/vmlinux")).err().unwrap();
    assert!(missing.to_string().starts_with("/none/vmlinux: No such file"), "{missing}");

    let mut b = kernel_like();
    task_members(&mut b, "start_boottime");
    let whole = b.bytes();
    for cut in 0..whole.len() {
        assert!(task_offsets(write(&whole[..cut]).path()).is_err(), "cut at {cut}");
    }
}

#[test]
fn the_running_kernel_agrees_with_an_independent_reader() {
    // Absent where the kernel has no BTF: `doctor`'s tests list that case.
    let path = Path::new(VMLINUX);
    let Ok(reference) = btf_rs::Btf::from_file(path) else {
        assert!(task_offsets(path).is_err());
        return;
    };
    let found = task_offsets(path).unwrap();
    let types = reference.resolve_types_by_name("task_struct").unwrap();
    let task = types
        .iter()
        .find_map(|ty| match ty {
            btf_rs::Type::Struct(s) => Some(s),
            _ => None,
        })
        .unwrap();
    let offset = |name: &str| {
        let member = task.members.iter().find(|m| reference.resolve_name(*m).is_ok_and(|n| n == name));
        member.map(|m| m.bit_offset() / 8)
    };
    let expected = ["pid", "tgid", "group_leader", "start_boottime", "self_exec_id", "stack", "flags"]
        .map(|n| offset(n).unwrap());
    assert_eq!(values(&found)[1..], expected);
}

proptest! {
    #[test]
    fn no_bytes_break_it(mut bytes: Vec<u8>, with_header: bool) {
        if with_header {
            let mut header = kernel_like().bytes()[..24].to_vec();
            header.append(&mut bytes);
            bytes = header;
        }
        let _ = task_offsets(write(&bytes).path());
    }

    #[test]
    fn no_changed_byte_breaks_it(at: prop::sample::Index, value: u8) {
        let mut b = kernel_like();
        task_members(&mut b, "start_boottime");
        let mut bytes = b.bytes();
        let at = at.index(bytes.len());
        bytes[at] = value;
        let _ = task_offsets(write(&bytes).path());
    }
}
