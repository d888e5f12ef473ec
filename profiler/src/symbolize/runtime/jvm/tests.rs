//! A small JVM made by hand, byte by byte, with the layout of JDK 17: known answers, and what happens if any of its
//! bytes is another one.

use std::{cell::Cell, collections::HashMap};

use proptest::prelude::*;

use profiler_common::unwind::java::CodeFrame;

use super::{unsigned5::tests::encode, vmstructs::SYMBOLS, *};
use crate::symbolize::runtime::memory::Image;

const LIBRARY: u64 = 0x7000_0000_0000;
const HEAP_OBJECT: u64 = 0x7100_0000_0000;
const LOW: u64 = 0x7200_0000_0000;
const SEGMAP: u64 = 0x7300_0000_0000;
const METASPACE: u64 = 0x7400_0000_0000;
const SEGMENT: u64 = 128;

/// Where the nmethod's block begins, in segments; the interpreter's is the first.
const NMETHOD_SEGMENT: u64 = 4;
const NMETHOD: u64 = LOW + NMETHOD_SEGMENT * SEGMENT + 16;
/// Offset of the code in the nmethod.
const CODE: u64 = 400;
const CODE_BYTES: u64 = 0x60;

/// Memory that objects are put into one behind the other.
pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
}

impl Piece {
    pub(super) fn new(start: u64, len: usize) -> Self {
        Self { start, bytes: vec![0; len] }
    }

    pub(super) fn put(&mut self, address: u64, bytes: &[u8]) {
        let at = (address - self.start) as usize;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn word(&mut self, address: u64, value: u64) {
        self.put(address, &value.to_ne_bytes());
    }

    pub(super) fn half(&mut self, address: u64, value: i32) {
        self.put(address, &value.to_ne_bytes());
    }

    pub(super) fn short(&mut self, address: u64, value: u16) {
        self.put(address, &value.to_ne_bytes());
    }

    /// Appends, aligned to words.
    pub(super) fn push(&mut self, bytes: &[u8]) -> u64 {
        let address = self.start + self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        address
    }

    pub(super) fn text(&mut self, text: &str) -> u64 {
        self.push(&[text.as_bytes(), b"\0"].concat())
    }
}

/// (field, type, offset), those that JDK 17 exports.
const FIELDS: [(&str, &str, u64); 51] = [
    ("ThreadsList::_length", "const uint", 4),
    ("GrowableArrayBase::_len", "int", 0),
    ("GrowableArray<int>::_data", "int*", 8),
    ("CodeHeap::_memory", "VirtualSpace", 8),
    ("CodeHeap::_segmap", "VirtualSpace", 120),
    ("CodeHeap::_log2_segment_size", "int", 256),
    ("VirtualSpace::_low", "char*", 16),
    ("VirtualSpace::_high", "char*", 24),
    ("VirtualSpace::_high_boundary", "char*", 8),
    ("HeapBlock::Header::_length", "size_t", 0),
    ("HeapBlock::Header::_used", "bool", 8),
    ("CodeBlob::_name", "const char*", 96),
    ("CodeBlob::_size", "int", 12),
    ("CodeBlob::_header_size", "int", 16),
    ("CodeBlob::_frame_size", "int", 28),
    ("CodeBlob::_frame_complete_offset", "int", 20),
    ("CodeBlob::_code_begin", "address", 32),
    ("CodeBlob::_code_end", "address", 40),
    ("CompiledMethod::_method", "Method*", 112),
    ("CompiledMethod::_scopes_data_begin", "address", 120),
    ("CompiledMethod::_deopt_handler_begin", "address", 128),
    ("CompiledMethod::_deopt_mh_handler_begin", "address", 136),
    ("nmethod::_compile_id", "int", 304),
    ("nmethod::_comp_level", "int", 308),
    ("nmethod::_state", "volatile signed char", 315),
    ("nmethod::_entry_bci", "int", 192),
    ("nmethod::_orig_pc_offset", "int", 300),
    ("nmethod::_scopes_pcs_offset", "int", 268),
    ("nmethod::_dependencies_offset", "int", 272),
    ("nmethod::_metadata_offset", "int", 260),
    ("Method::_constMethod", "ConstMethod*", 8),
    ("ConstMethod::_constants", "ConstantPool*", 8),
    ("ConstMethod::_constMethod_size", "int", 24),
    ("ConstMethod::_flags", "u2", 28),
    ("ConstMethod::_code_size", "u2", 32),
    ("ConstMethod::_name_index", "u2", 34),
    ("ConstMethod::_signature_index", "u2", 36),
    ("ConstantPool::_pool_holder", "InstanceKlass*", 24),
    ("ConstantPool::_length", "int", 60),
    ("ConstantPool::_source_file_name_index", "u2", 54),
    ("Klass::_name", "Symbol*", 24),
    ("Symbol::_length", "u2", 4),
    ("Symbol::_body[0]", "u1", 6),
    ("StubQueue::_stub_buffer", "address", 8),
    ("StubQueue::_buffer_limit", "int", 20),
    ("JavaCallWrapper::_anchor", "JavaFrameAnchor", 32),
    ("JavaThread::_anchor", "JavaFrameAnchor", 656),
    ("JavaFrameAnchor::_last_Java_sp", "intptr_t*", 0),
    ("JavaFrameAnchor::_last_Java_pc", "address", 8),
    ("JavaFrameAnchor::_last_Java_fp", "intptr_t*", 16),
    ("Unrelated::_field", "SomethingElse", 1 << 40),
];
const STATICS: [&str; 5] = [
    "ThreadsSMRSupport::_java_thread_list",
    "CodeCache::_heaps",
    "Abstract_VM_Version::_vm_major_version",
    "AbstractInterpreter::_code",
    "StubRoutines::_call_stub_return_address",
];

/// The JVM, and the addresses of what its libjvm exports.
pub(super) struct Made {
    image: Image,
    symbols: HashMap<&'static str, u64>,
}

impl Made {
    pub(super) fn jvm(&self) -> Result<Jvm<Image>, Fault> {
        Jvm::new(self.image.clone(), |name| self.symbols.get(name).copied())
    }
}

pub(super) fn made() -> Made {
    let mut library = Piece::new(LIBRARY, 0);
    let statics = STATICS.map(|name| (name, library.push(&[0; 8])));
    let symbols = tables(&mut library, &statics);
    let [threads, heaps, major, interpreter, call_stub] = statics.map(|(_, address)| address);
    library.half(major, 17);
    library.word(call_stub, 0x1234_5678);

    let mut heap = Piece::new(HEAP_OBJECT, 1024);
    let (list, pointers, queue) = (HEAP_OBJECT + 512, HEAP_OBJECT + 600, HEAP_OBJECT + 700);
    library.word(heaps, list);
    library.word(threads, HEAP_OBJECT + 800);
    heap.half(HEAP_OBJECT + 804, 1);
    heap.half(list, 1);
    heap.word(list + 8, pointers);
    heap.word(pointers, HEAP_OBJECT);
    heap.word(HEAP_OBJECT + 8 + 16, LOW);
    heap.word(HEAP_OBJECT + 8 + 24, LOW + 32 * SEGMENT);
    heap.word(HEAP_OBJECT + 8 + 8, LOW + 64 * SEGMENT);
    heap.word(HEAP_OBJECT + 120 + 16, SEGMAP);
    heap.half(HEAP_OBJECT + 256, 7);
    library.word(interpreter, queue);
    heap.word(queue + 8, LOW + 16 + 64);
    heap.half(queue + 20, 256);

    let mut segmap = Piece::new(SEGMAP, 32);
    segmap.put(SEGMAP, &[0, 1, 2, 3]);
    segmap.put(SEGMAP + NMETHOD_SEGMENT, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    segmap.put(SEGMAP + 16, &[0xff; 16]);

    let mut metaspace = Piece::new(METASPACE, 0);
    let outer = method(&mut metaspace, "a/b/Outer", "run", "()V", Some("Outer.java"));
    let inner = method(&mut metaspace, "a/b/Inner$1", "<init>", "(I[Ljava/lang/String;)V", None);
    let code = code(&mut library, outer, inner);
    // A library is mapped in whole pages.
    library.bytes.resize(library.bytes.len().next_multiple_of(4096), 0);
    let pieces = [library, heap, segmap, metaspace, code].map(|piece| (piece.start, piece.bytes));
    Made { image: Image { pieces: pieces.into(), read: Default::default() }, symbols }
}

fn tables(library: &mut Piece, statics: &[(&'static str, u64)]) -> HashMap<&'static str, u64> {
    let mut fields = Vec::new();
    let mut entry = |library: &mut Piece, name: &str, kind: &str, is_static: u64, place: [u64; 2]| {
        let (owner, field) = name.rsplit_once("::").unwrap();
        let words = [library.text(owner), library.text(field), library.text(kind), is_static];
        fields.extend(words.into_iter().chain(place));
    };
    for (name, kind, offset) in FIELDS {
        entry(library, name, kind, 0, [offset, 0]);
    }
    for &(name, address) in statics {
        entry(library, name, "address", 1, [0, address]);
    }
    let pairs = |library: &mut Piece, pairs: &[(&str, u64)]| {
        let words: Vec<u64> = pairs.iter().flat_map(|&(name, value)| [library.text(name), value]).collect();
        table(library, &words, 2)
    };
    let sizes = [("ConstMethod", 48), ("ConstantPool", 72), ("nmethod", 352)];
    let types = pairs(library, &sizes);
    let ints = pairs(library, &[("frame::entry_frame_call_wrapper_offset", -6i32 as u32 as u64)]);
    let longs = pairs(library, &[("markWord::age_bits", 4)]);
    let fields = table(library, &fields, 6);
    let values = [
        fields, 48, 0, 8, 16, 24, 32, 40, // structs
        types, 16, 0, 8, ints, 16, 0, 8, longs, 16, 0, 8,
    ];
    SYMBOLS
        .into_iter()
        .zip(values)
        .map(|(name, value)| (name, library.push(&u64::to_ne_bytes(value))))
        .collect()
}

/// A table with an entry of zeros at its end.
fn table(library: &mut Piece, words: &[u64], width: usize) -> u64 {
    let bytes: Vec<u8> = words.iter().copied().chain(vec![0; width]).flat_map(u64::to_ne_bytes).collect();
    library.push(&bytes)
}

pub(super) fn symbol(metaspace: &mut Piece, text: &str) -> u64 {
    let length = (text.len() as u16).to_ne_bytes();
    metaspace.push(&[&[0; 4], &length[..], text.as_bytes()].concat())
}

/// A method of 20 bytes of bytecode whose lines are 100 from the first and 107 from the eighth on.
fn method(metaspace: &mut Piece, class: &str, name: &str, descriptor: &str, file: Option<&str>) -> u64 {
    let class_name = symbol(metaspace, class);
    let klass = metaspace.push(&[0; 200]);
    metaspace.word(klass + 24, class_name);
    let entries =
        [0, symbol(metaspace, name), symbol(metaspace, descriptor), symbol(metaspace, file.unwrap_or("-"))];
    let pool = metaspace.push(&[0; 72]);
    metaspace.push(&entries.map(u64::to_ne_bytes).concat());
    metaspace.word(pool + 24, klass);
    metaspace.half(pool + 60, entries.len() as i32);
    metaspace.short(pool + 54, if file.is_some() { 3 } else { 0 });
    let const_method = metaspace.push(&[0; 80]);
    // 100 as a signed number is 200, which takes two bytes.
    let mut packed = vec![0xff];
    encode(0, 0, &mut packed);
    encode(200, 0, &mut packed);
    packed.extend([8 << 3 | 7, 0]);
    metaspace.put(const_method + 48 + 20, &packed);
    metaspace.word(const_method + 8, pool);
    metaspace.half(const_method + 24, 10);
    metaspace.short(const_method + 28, 1);
    metaspace.short(const_method + 32, 20);
    metaspace.short(const_method + 34, 1);
    metaspace.short(const_method + 36, 2);
    let method = metaspace.push(&[0; 88]);
    metaspace.word(method + 8, const_method);
    method
}

/// The interpreter, and an nmethod: `Outer.run`, with `Inner.<init>` inlined at 0x20 to 0x40.
fn code(library: &mut Piece, outer: u64, inner: u64) -> Piece {
    let mut code = Piece::new(LOW, (32 * SEGMENT) as usize);
    let mut blob =
        |library: &mut Piece, block: u64, name: &str, segments: u64, code_at: u64, code_len: u64| {
            code.word(block, segments);
            code.put(block + 8, &[1]);
            let blob = block + 16;
            code.word(blob + 96, library.text(name));
            code.half(blob + 12, (segments * SEGMENT - 16) as i32);
            code.half(blob + 20, 12);
            code.half(blob + 28, 4);
            code.word(blob + 32, blob + code_at);
            code.word(blob + 40, blob + code_at + code_len);
        };
    blob(library, LOW, "Interpreter", 4, 64, 256);
    blob(library, LOW + NMETHOD_SEGMENT * SEGMENT, "nmethod", 12, CODE, CODE_BYTES);
    // A free block to the end of what is in use.
    code.word(LOW + 16 * SEGMENT, 16);

    let mut scopes = vec![0];
    let outer_scope = scopes.len() as i32;
    for number in [0, 1, 9 + 1] {
        encode(number, 0, &mut scopes);
    }
    let inner_scope = scopes.len() as i32;
    for number in [outer_scope as u32, 2, 3 + 1] {
        encode(number, 0, &mut scopes);
    }
    let (data, metadata) = (NMETHOD + 600, NMETHOD + 700);
    let pcs = data + scopes.len() as u64;
    code.put(data, &scopes);
    let entries = [(-1, 0), (0x20, outer_scope), (0x40, inner_scope), (0x50, outer_scope)];
    for (index, (offset, scope)) in entries.into_iter().enumerate() {
        code.half(pcs + 16 * index as u64, offset);
        code.half(pcs + 16 * index as u64 + 4, scope);
    }
    code.word(NMETHOD + 112, outer);
    code.word(NMETHOD + 120, data);
    code.half(NMETHOD + 192, -1);
    code.half(NMETHOD + 260, 700);
    code.half(NMETHOD + 268, (pcs - NMETHOD) as i32);
    code.half(NMETHOD + 272, (pcs - NMETHOD) as i32 + 16 * entries.len() as i32);
    code.half(NMETHOD + 304, 77);
    code.half(NMETHOD + 308, 4);
    code.word(metadata, outer);
    code.word(metadata + 8, inner);
    code
}

/// `name:line` of each frame.
fn shown(code: &Code) -> Vec<String> {
    let activations = code.frames.iter().map(Frame::activation);
    activations.map(|activation| format!("{}:{}", activation.name, activation.line)).collect()
}

fn at(jvm: &mut Jvm<Image>, offset: u64) -> (Vec<String>, Tier) {
    let code = jvm.name(NMETHOD + CODE + offset).unwrap();
    (shown(&code), code.tier)
}

#[test]
fn addresses_are_named_with_what_is_inlined() {
    let mut jvm = made().jvm().unwrap();
    assert_eq!(jvm.major(), 17);
    let outer = "a.b.Outer.run:107".to_owned();
    assert_eq!(at(&mut jvm, 0), (vec![outer.clone()], Tier::C2));
    assert_eq!(at(&mut jvm, 0x20), (vec![outer.clone()], Tier::C2));
    let inlined = vec!["a.b.Inner$1.<init>:100".to_owned(), outer.clone()];
    assert_eq!(at(&mut jvm, 0x21), (inlined.clone(), Tier::C2));
    assert_eq!(at(&mut jvm, 0x40), (inlined, Tier::C2));
    assert_eq!(at(&mut jvm, 0x50), (vec![outer], Tier::C2));
    assert_eq!(at(&mut jvm, 0x51), (vec!["a.b.Outer.run:0".to_owned()], Tier::C2), "no debug information");
    let interpreter = jvm.name(LOW + 200).unwrap();
    assert_eq!(
        (shown(&interpreter), interpreter.tier),
        (vec!["Interpreter:0".to_owned()], Tier::Interpreter)
    );
    for nowhere in [LOW - 1, LOW + 17 * SEGMENT, LOW + 32 * SEGMENT, 0, u64::MAX] {
        assert_eq!(jvm.name(nowhere), Err(Fault::NoCode), "{nowhere:#x}");
    }
    assert_eq!(jvm.name(NMETHOD), Err(Fault::Torn("an address")), "a blob's header is no code");
    assert_eq!(jvm.remembered(NMETHOD + CODE, None).unwrap(), jvm.name(NMETHOD + CODE).unwrap());
}

#[test]
fn all_code_is_listed_with_its_methods() {
    let mut jvm = made().jvm().unwrap();
    let code: Vec<Listed> = jvm.all_code().unwrap().into_iter().map(Result::unwrap).collect();
    let [interpreter, run] = &code[..] else { panic!("{code:?}") };
    assert_eq!((&interpreter.blob.name[..], interpreter.tier), (&b"Interpreter"[..], Tier::Interpreter));
    assert_eq!((run.blob.code_begin, run.blob.code_end), (NMETHOD + CODE, NMETHOD + CODE + CODE_BYTES));
    assert_eq!((run.blob.frame_size, run.blob.frame_complete), (4, 12));
    let compilation = run.blob.compilation().unwrap();
    assert_eq!((compilation.id, compilation.level, compilation.osr), (77, 4, false));
    let method = run.method.as_ref().unwrap();
    assert_eq!(method.external(), "void a.b.Outer.run()");
    assert_eq!(method.file.as_deref(), Some("Outer.java"));
}

#[test]
fn a_walk_gets_its_numbers() {
    let layout = made().jvm().unwrap().layout().unwrap();
    assert_eq!(layout.interpreter, (LOW + 80, LOW + 80 + 256));
    assert_eq!((layout.call_stub_return, layout.entry_frame_call_wrapper), (0x1234_5678, -6));
    assert_eq!((layout.block_used, layout.block_header), (8, 16));
    assert!(layout.nmethod_names[0].is_some() && layout.nmethod_names[1].is_none());
    assert_eq!(layout.heaps.len(), 1);
    assert_eq!(layout.anchor, [0, 8, 16]);
    // The same for the kernel side, where all of it is counted from the start of a block.
    if let Some(jvm) = layout.jvm(5) {
        assert_eq!((jvm.incarnation, jvm.heaps[0].low, jvm.heaps[1].low), (5, LOW, 0));
        assert_eq!((jvm.interpreter, jvm.used, jvm.block_header), (LOW + 80, 8, 16));
        assert_eq!(u64::from(jvm.frame_size), 16 + layout.blob_frame_size.offset);
        let mut many = layout.clone();
        many.heaps = vec![many.heaps[0]; 5];
        assert_eq!(many.jvm(5), None, "too many heaps");
        let mut far = layout.clone();
        far.blob_frame_size.offset = 200;
        assert_eq!(far.jvm(5), None, "further than is read");
        let mut apart = layout.clone();
        apart.heaps[0].reserved_high = LOW + CodeFrame::MAX_BYTES + 1;
        assert_eq!(apart.jvm(5), None, "further than a frame's word reaches");
        assert_eq!((jvm.code_base, jvm.compile_id, jvm.nmethod_header), (LOW, 16 + 304, 352));
        assert_eq!((jvm.original_pc, jvm.deopt_handlers), (16 + 300, [16 + 128, 16 + 136]));
    }
    assert_eq!(layout.jvm(5).is_some(), cfg!(target_arch = "x86_64"));
}

#[test]
fn an_interpreted_frame_is_named_by_its_method_and_bytecode() {
    let mut jvm = made().jvm().unwrap();
    let listed = jvm.all_code().unwrap().remove(1).unwrap();
    let method = listed.blob.compilation().unwrap().method;
    let line = |jvm: &mut Jvm<Image>, bci| jvm.interpreted(method, bci).map(|code| shown(&code));
    assert_eq!(line(&mut jvm, Some(0)).unwrap(), ["a.b.Outer.run:100"]);
    assert_eq!(line(&mut jvm, Some(19)).unwrap(), ["a.b.Outer.run:107"]);
    assert_eq!(line(&mut jvm, None).unwrap(), ["a.b.Outer.run:0"]);
    assert!(line(&mut jvm, Some(20)).is_err(), "behind its bytecode");
    assert!(jvm.interpreted(8, Some(0)).is_err());
}

#[test]
fn a_version_without_a_field_is_refused_by_its_name() {
    let mut made = made();
    made.symbols.remove("gHotSpotVMTypes");
    assert_eq!(made.jvm().unwrap_err(), Fault::Missing("gHotSpotVMTypes"));
    let mut made = self::made();
    let library = made.image.pieces.get_mut(&LIBRARY).unwrap();
    let at = library.windows(12).position(|bytes| bytes == b"_compile_id\0").unwrap();
    library[at] = b'x';
    assert_eq!(made.jvm().unwrap_err(), Fault::Missing("nmethod::_compile_id"));
}

/// Before its first thread, what a walk needs is not final.
#[test]
fn a_jvm_that_is_starting_has_no_numbers_yet() {
    let mut made = made();
    made.image.pieces.get_mut(&HEAP_OBJECT).unwrap()[804] = 0;
    assert_eq!(made.jvm().unwrap().layout(), Err(Fault::Torn("no Java thread yet")));
}

/// Code that was named and is freed is remembered; code that took its place has its own name.
#[test]
fn freed_and_replaced_code() {
    let mut jvm = made().jvm().unwrap();
    let named = jvm.name(NMETHOD + CODE).unwrap();
    let code = |jvm: &mut Jvm<Image>, at: u64, value: u8| {
        let piece = jvm.memory.inner_mut().pieces.get_mut(&LOW).unwrap();
        piece[(at - LOW) as usize] = value;
    };
    code(&mut jvm, NMETHOD - 8, 0);
    assert_eq!(jvm.name(NMETHOD + CODE).unwrap(), named);
    assert_eq!(self::made().jvm().unwrap().name(NMETHOD + CODE).unwrap(), named);
    code(&mut jvm, NMETHOD - 8, 1);
    code(&mut jvm, NMETHOD + 304, 78);
    code(&mut jvm, NMETHOD + 308, 1);
    assert_eq!(jvm.name(NMETHOD + CODE).unwrap().tier, Tier::C1);
    // Which code a frame is of decides, not what is there now.
    let of = |jvm: &mut Jvm<Image>, id| jvm.name_of(CodeId::compilation(id), NMETHOD + CODE);
    assert_eq!(of(&mut jvm, 77).unwrap(), named);
    assert_eq!(of(&mut jvm, 78).unwrap().tier, Tier::C1);
    assert_eq!(jvm.remembered(NMETHOD + CODE, Some(CodeId::compilation(77))).unwrap(), named);
    assert_eq!(jvm.remembered(NMETHOD + CODE, None).unwrap().tier, Tier::C1);
    for other in [CodeId::compilation(76), CodeId::UNKNOWN, CodeId::other(77)] {
        assert_eq!(jvm.name_of(other, NMETHOD + CODE), Err(Fault::Torn("the code at an address")));
        assert_eq!(jvm.remembered(NMETHOD + CODE, Some(other)), Err(Fault::NoCode));
    }
    assert_eq!(jvm.name_of(CodeId::compilation(78), NMETHOD), Err(Fault::Torn("an address")));
    // Its scopes say that they are another method's.
    code(&mut jvm, NMETHOD + 304, 79);
    let second = jvm.memory.u64(NMETHOD + 708).unwrap().to_ne_bytes();
    for (index, byte) in second.into_iter().enumerate() {
        code(&mut jvm, NMETHOD + 700 + index as u64, byte);
    }
    jvm.refresh().unwrap();
    assert_eq!(jvm.name(NMETHOD + CODE), Err(Fault::Torn("a scope")));
}

/// Whatever the bytes are: an answer or a reason, after bounded reading.
fn survives(made: &Made) {
    if let Ok(mut jvm) = made.jvm() {
        ask(&mut jvm, |image| image.read.take());
    }
}

/// Asks everything that can be asked. `read` gives the bytes that were read, and counts from 0 on.
fn ask<M: Memory>(jvm: &mut Jvm<M>, read: impl Fn(&M) -> u64) {
    let bounded = |jvm: &mut Jvm<M>, what: &str| {
        let read = read(jvm.memory.inner_mut());
        assert!(read <= MAX_READ, "{what}: {read} bytes read");
    };
    bounded(jvm, "new");
    _ = jvm.refresh();
    for address in (LOW..LOW + 17 * SEGMENT).step_by(40) {
        _ = (jvm.name(address), jvm.remembered(address, None));
        _ = jvm.name_of(CodeId::compilation(77), address);
    }
    _ = (jvm.layout(), jvm.interpreted(METASPACE, Some(100)), jvm.covers(LOW));
    bounded(jvm, "names");
    _ = jvm.all_code();
    bounded(jvm, "all code");
    _ = (jvm.refresh(), jvm.name(NMETHOD + CODE), jvm.layout());
    bounded(jvm, "again");
}

/// A JVM that goes on while it is read: one in so many reads gives something else, or nothing.
struct Changing {
    image: Image,
    one_in: u64,
    random: Cell<u64>,
}

impl Changing {
    fn next(&self) -> u64 {
        // Marsaglia's xorshift64: the same numbers in every run.
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        x
    }
}

impl Memory for Changing {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Unmapped> {
        self.image.read(address, buffer)?;
        if !self.next().is_multiple_of(self.one_in) {
            return Ok(());
        }
        let at = self.next() as usize % buffer.len().max(1);
        match (self.next() % 5, buffer.get_mut(at)) {
            (0, Some(byte)) => *byte ^= 1 << (self.next() % 8),
            (1, Some(byte)) => *byte = self.next() as u8,
            (2, _) => buffer.fill(0xff),
            (3, _) => buffer.fill(0),
            _ => return Err(Unmapped { address }),
        }
        Ok(())
    }
}

#[test]
fn a_jvm_may_change_while_it_is_read() {
    let made = made();
    let mut named = 0;
    for seed in 1..=3_000 {
        let image = Image { read: Cell::default(), ..made.image.clone() };
        let memory = Changing {
            image,
            one_in: u64::MAX,
            random: Cell::new(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed)),
        };
        let mut jvm = Jvm::new(memory, |name| made.symbols.get(name).copied()).unwrap();
        jvm.memory.inner_mut().one_in = [5, 50, 500][seed as usize % 3];
        ask(&mut jvm, |memory| memory.image.read.take());
        named += u32::from(jvm.name(NMETHOD + CODE).is_ok());
    }
    // It is not that nothing can be read any more.
    assert!((1_000..3_000).contains(&named), "{named}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_byte_may_be_another(mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut made = made();
        let sizes: Vec<(u64, usize)> = made.image.pieces.iter().map(|(&start, bytes)| (start, bytes.len())).collect();
        let total: usize = sizes.iter().map(|(_, len)| len).sum();
        for (index, value) in mutations {
            let mut at = index.index(total);
            for (start, len) in &sizes {
                if at < *len {
                    made.image.pieces.get_mut(start).unwrap()[at] = value;
                    break;
                }
                at -= len;
            }
        }
        survives(&made);
    }

    /// The same where it hurts: in the objects, and by whole words.
    #[test]
    fn any_word_may_be_another(
        at in prop::collection::vec((0u64..5, any::<prop::sample::Index>(), prop_oneof![
            Just(0u64), Just(u64::MAX), Just(LOW), Just(NMETHOD), Just(METASPACE), Just(1 << 31), any::<u64>(),
        ]), 1..4),
    ) {
        let mut made = made();
        for (piece, index, value) in at {
            let start = [LIBRARY, HEAP_OBJECT, LOW, SEGMAP, METASPACE][piece as usize];
            let bytes = made.image.pieces.get_mut(&start).unwrap();
            let at = index.index(bytes.len() / 8) * 8;
            bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        survives(&made);
    }

    #[test]
    fn any_part_may_be_missing(piece in 0usize..5, keep in any::<prop::sample::Index>()) {
        let mut made = made();
        let start = [LIBRARY, HEAP_OBJECT, LOW, SEGMAP, METASPACE][piece];
        let bytes = made.image.pieces.get_mut(&start).unwrap();
        let len = keep.index(bytes.len());
        bytes.truncate(len);
        survives(&made);
    }
}
