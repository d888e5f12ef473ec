//! A thread's name and a monitor's class on a small heap made by hand, with each place that a class can be at.

use super::{
    super::tests::{self, Piece},
    *,
};
use crate::symbolize::runtime::memory::Image;

const HEAP: u64 = 0x1_0000_0000;
const CLASSES: u64 = 0x2_0000_0000;
const LIBRARY: u64 = 0x3_0000_0000;

/// Where narrow references to classes are counted from, and how far they are shifted.
const KLASS_BASE: u64 = CLASSES - 0x1000;
const KLASS_SHIFT: u32 = 3;
/// Of a mark word, below the class.
const MARK_BITS: u32 = 42;

/// `java.lang.Thread::name`, `java.lang.String::{value,coder}`: place in an object.
const NAME: u64 = 24;
const VALUE: u64 = 16;
const CODER: u64 = 20;

/// How a JVM keeps classes in objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// As addresses; arrays' bytes are aligned, as to JDK 22, or not.
    Whole { major: u32 },
    /// As half of a word, by a flag; JDK 17.
    Narrow,
    /// The same without a flag; JDK 27 without compact headers.
    Always,
    /// In the mark word; JDK 25, which has the fields of the others too.
    Compact,
    /// The same; JDK 27.
    AlwaysCompact,
}

impl Kept {
    const ALL: [Self; 6] = [
        Self::Whole { major: 17 },
        Self::Whole { major: 25 },
        Self::Narrow,
        Self::Always,
        Self::Compact,
        Self::AlwaysCompact,
    ];

    fn major(self) -> u32 {
        match self {
            Self::Whole { major } => major,
            Self::Narrow => 17,
            Self::Compact => 25,
            Self::Always | Self::AlwaysCompact => 27,
        }
    }

    fn is_compact(self) -> bool {
        matches!(self, Self::Compact | Self::AlwaysCompact)
    }

    /// Offsets of an array's length and of its bytes.
    fn array(self) -> (u64, u64) {
        match self {
            Self::Whole { major: 17 } => (16, 24),
            Self::Whole { .. } => (16, 20),
            Self::Narrow | Self::Always => (12, 16),
            Self::Compact | Self::AlwaysCompact => (8, 12),
        }
    }

    fn flags(self) -> Vec<(&'static str, bool)> {
        let mut flags = vec![("SomethingElse", true), ("UseCompressedOops", true)];
        if !matches!(self, Self::Always | Self::AlwaysCompact) {
            flags.push(("UseCompressedClassPointers", !matches!(self, Self::Whole { .. })));
        }
        if self.major() >= 24 {
            flags.push(("UseCompactObjectHeaders", self.is_compact()));
        }
        flags
    }

    /// Where the class is at, if it is at a place of its own.
    fn klass_field(self) -> &'static str {
        match self {
            Self::Always | Self::AlwaysCompact => "oopDesc::_compressed_klass",
            _ => "oopDesc::_metadata._klass",
        }
    }

    /// Puts an object's class.
    fn put(self, heap: &mut Piece, object: u64, klass: u64) {
        let narrow = (klass - KLASS_BASE) >> KLASS_SHIFT;
        match self {
            Self::Whole { .. } => heap.word(object + 8, klass),
            Self::Narrow | Self::Always => heap.half(object + 8, narrow as i32),
            // Locked, with a hash.
            Self::Compact | Self::AlwaysCompact => heap.word(object, narrow << MARK_BITS | 0x1234 << 8 | 2),
        }
    }
}

/// The memory, its tables, the address of a `JavaThread` and of an `ObjectMonitor`.
struct Heap {
    memory: Image,
    tables: Tables,
    thread: u64,
    monitor: u64,
}

/// A class whose fields are these: name, descriptor, place.
fn class(classes: &mut Piece, name: &str, above: u64, fields: &[(&str, &str, u64)]) -> u64 {
    let symbol = tests::symbol(classes, name);
    let texts = fields.iter().flat_map(|&(name, descriptor, _)| [name, descriptor]);
    let symbols: Vec<u64> = texts.map(|text| tests::symbol(classes, text)).collect();
    // A constant pool has 72 bytes before its entries.
    let pool = classes.push(&[0; 72]);
    symbols.iter().for_each(|symbol| _ = classes.push(&symbol.to_ne_bytes()));
    let slots = fields.iter().enumerate().flat_map(|(index, &(.., place))| {
        let (index, place) = (2 * index as u16, (place as u16) << 2);
        [0, index, index + 1, 0, place, 0]
    });
    let slots: Vec<u8> = slots.flat_map(u16::to_ne_bytes).collect();
    let array = classes.push(&[&[0; 4], &slots[..]].concat());
    let klass = classes.push(&[0; 64]);
    for (place, word) in [(8, above), (16, pool), (24, symbol), (32, array)] {
        classes.word(klass + place, word);
    }
    classes.short(klass + 40, fields.len() as u16);
    klass
}

fn heap(kept: Kept) -> Heap {
    let mut classes = Piece::new(CLASSES, 0);
    let thread_class = class(&mut classes, "java/lang/Thread", 0, &[("name", "Ljava/lang/String;", NAME)]);
    let own_class = class(&mut classes, "a/Worker", thread_class, &[]);
    let string_class =
        class(&mut classes, "java/lang/String", 0, &[("coder", "B", CODER), ("value", "[B", VALUE)]);

    let mut heap = Piece::new(HEAP, 512);
    let [worker, text, bytes, thread, monitor] = [64, 128, 192, 256, 320].map(|at| HEAP + at);
    kept.put(&mut heap, worker, own_class);
    kept.put(&mut heap, text, string_class);
    // Narrow references to objects are counted from 0, in words.
    heap.half(worker + NAME, (text >> 3) as i32);
    heap.half(text + VALUE, (bytes >> 3) as i32);
    let (length, first) = kept.array();
    heap.half(bytes + length, 6);
    heap.put(bytes + first, b"main-1xx");
    // From JDK 16 on what a monitor has is a handle.
    heap.word(HEAP, worker);
    heap.word(thread + 16, HEAP);
    heap.word(monitor + 24, HEAP);

    let mut library = Piece::new(LIBRARY, 0);
    let flags = kept.flags();
    let flags: Vec<u64> = flags
        .iter()
        .flat_map(|&(name, is_set)| [library.push(&[u8::from(is_set)]), library.text(name)])
        .collect();
    let table: Vec<u8> = flags.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let table = library.push(&table);
    let statics = [
        ("JVMFlag::flags", table),
        ("JVMFlag::numFlags", flags.len() as u64 / 2),
        ("CompressedOops::_base", 0),
        ("CompressedOops::_shift", 3),
        ("CompressedKlassPointers::_base", KLASS_BASE),
        ("CompressedKlassPointers::_shift", u64::from(KLASS_SHIFT)),
    ]
    .map(|(name, value)| (name, library.push(&value.to_ne_bytes())));
    library.bytes.resize(library.bytes.len().next_multiple_of(4096), 0);

    let offsets = [
        ("JavaThread::_threadObj", "OopHandle", 16),
        ("ObjectMonitor::_object", "WeakHandle", 24),
        ("oopDesc::_mark", "markWord", 0),
        (kept.klass_field(), "Klass*", 8),
        ("Klass::_super", "Klass*", 8),
        ("InstanceKlass::_constants", "ConstantPool*", 16),
        ("InstanceKlass::_fields", "Array<u2>*", 32),
        ("InstanceKlass::_java_fields_count", "u2", 40),
        ("JVMFlag::_addr", "void*", 0),
        ("JVMFlag::_name", "const char*", 8),
    ];
    let shift = [("markWord::klass_shift", i64::from(MARK_BITS))];
    let tables = Tables::made(&statics, &offsets, &[("JVMFlag", 16)], &shift);
    let pieces = [heap, classes, library].map(|piece| (piece.start, piece.bytes));
    Heap { memory: Image { pieces: pieces.into(), ..Image::default() }, tables, thread, monitor }
}

fn objects(heap: &Heap, kept: Kept) -> Result<Objects, Fault> {
    Objects::new(&heap.memory, &heap.tables, kept.major())
}

#[test]
fn names_and_classes_wherever_objects_have_their_class() {
    let layout = tests::made().jvm().unwrap().layout;
    for kept in Kept::ALL {
        let heap = heap(kept);
        let objects = objects(&heap, kept).unwrap();
        assert_eq!(objects.array, kept.array(), "{kept:?}");
        let name = objects.thread_name(&heap.memory, &layout, heap.thread);
        assert_eq!(name.as_deref(), Ok("main-1"), "{kept:?}");
        let class = objects.class_of_monitor(&heap.memory, &layout, heap.monitor);
        assert_eq!(class.as_deref(), Ok("a.Worker"), "{kept:?}");
    }
}

/// A collector has left where it moved to in its mark word.
#[test]
fn an_object_that_was_moved_has_no_class_in_its_mark() {
    let layout = tests::made().jvm().unwrap().layout;
    for (kept, expected) in
        [(Kept::Compact, Err(Fault::Torn("an object"))), (Kept::Narrow, Ok("a.Worker".to_owned()))]
    {
        let mut heap = heap(kept);
        heap.memory.pieces.get_mut(&HEAP).unwrap()[64] |= 3;
        let objects = objects(&heap, kept).unwrap();
        assert_eq!(objects.class_of_monitor(&heap.memory, &layout, heap.monitor), expected, "{kept:?}");
        assert_eq!(objects.thread_name(&heap.memory, &layout, heap.thread).is_ok(), expected.is_ok());
    }
    // No class at all.
    let mut heap = heap(Kept::AlwaysCompact);
    heap.memory.pieces.get_mut(&HEAP).unwrap()[64..72].fill(0);
    let objects = objects(&heap, Kept::AlwaysCompact).unwrap();
    let class = objects.class_of_monitor(&heap.memory, &layout, heap.monitor);
    assert_eq!(class, Err(Fault::Unmapped(Unmapped { address: HEAP + 64 })));
}

#[test]
fn a_layout_that_is_not_told_is_not_guessed() {
    // Whether classes are narrow is told by a flag, which is not there.
    const FLAG: &str = "UseCompressedClassPointers";
    for kept in [Kept::Narrow, Kept::Whole { major: 17 }] {
        let mut heap = heap(kept);
        let library = heap.memory.pieces.get_mut(&LIBRARY).unwrap();
        let at = library.windows(FLAG.len()).position(|bytes| bytes == FLAG.as_bytes()).unwrap();
        library[at] = b'x';
        assert_eq!(objects(&heap, kept), Err(Fault::Missing(FLAG)), "{kept:?}");
    }
    for (shift, expected) in
        [(None, Fault::Missing("markWord::klass_shift")), (Some(3), Fault::Table("a shift"))]
    {
        let mut heap = heap(Kept::Compact);
        heap.tables.set_constant("markWord::klass_shift", shift);
        assert_eq!(objects(&heap, Kept::Compact), Err(expected));
        // Others do not need it.
        heap = self::heap(Kept::Narrow);
        heap.tables.set_constant("markWord::klass_shift", shift);
        assert!(objects(&heap, Kept::Narrow).is_ok());
    }
}
