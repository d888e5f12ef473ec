//! What a Java thread waits for, by its innermost Java code. The kernel knows only the call that it blocks in, which is `futex`
//! for most of these.
//!
//! | wait | code |
//! |---|---|
//! | monitor | the stub that compiled code enters a contended monitor by; in the interpreter, a `monitorenter`, or the entry of a synchronized method |
//! | object-wait | `Object.wait` |
//! | park | `Unsafe.park`, which locks, queues and executors of `java.util.concurrent` wait by |
//! | thread-sleep | `Thread.sleep` |
//! | allocation | the stubs that compiled code takes new memory by: it waits for the collector |
//! | safepoint | the stub that compiled code stops by |
//!
//! Source: share/runtime/sharedRuntime.cpp, share/opto/runtime.cpp, share/c1/c1_Runtime1.cpp (names of stubs, which have changed
//! their prefix in JDK 24).

use super::{
    code::{Code, Frame, Tier},
    layout::Layout,
    method::Method,
};
use crate::symbolize::runtime::memory::Memory;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wait {
    /// To enter a monitor that another thread has.
    Monitor,
    /// For a notification.
    ObjectWait,
    /// Parked.
    Park,
    /// For a time.
    Sleep,
    /// For memory.
    Allocation,
    /// For the JVM's own work to be done.
    Safepoint,
}

/// `monitorenter` (JVMS 6.5).
const MONITORENTER: u8 = 0xc2;
/// Bytecodes that make objects, load classes or call: `ldc` and its like, `invoke...` to `anewarray`, `checkcast`, `instanceof`,
/// `monitorenter`, `multianewarray`, and those of HotSpot itself that are not only quicker accesses (from 0xe3 on).
const WAIT: [std::ops::RangeInclusive<u8>; 5] =
    [0x12..=0x14, 0xb6..=0xbd, 0xc0..=0xc2, 0xc5..=0xc5, 0xe3..=0xff];
/// `ACC_SYNCHRONIZED` (JVMS 4.6).
const SYNCHRONIZED: u8 = 0x20;

impl Wait {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Monitor, Self::ObjectWait, Self::Park, Self::Sleep, Self::Allocation, Self::Safepoint];

    /// Stable key (labels, JSON).
    pub const fn key(self) -> &'static str {
        match self {
            Self::Monitor => "monitor",
            Self::ObjectWait => "object-wait",
            Self::Park => "park",
            Self::Sleep => "thread-sleep",
            Self::Allocation => "allocation",
            Self::Safepoint => "safepoint",
        }
    }

    fn of_stub(name: &str) -> Option<Self> {
        const NEW: [&str; 6] = [
            "new_instance",
            "new_array",
            "new_type_array",
            "new_object_array",
            "new_multi_array",
            "multianewarray",
        ];
        if name.contains("monitorenter") || name.contains("complete_monitor_locking") {
            Some(Self::Monitor)
        } else if name == "SafepointBlob" {
            Some(Self::Safepoint)
        } else {
            NEW.iter().any(|new| name.contains(new)).then_some(Self::Allocation)
        }
    }

    fn of_method(method: &Method) -> Option<Self> {
        match (&*method.class, &*method.name) {
            ("java.lang.Object", "wait" | "wait0") => Some(Self::ObjectWait),
            ("jdk.internal.misc.Unsafe" | "sun.misc.Unsafe", "park") => Some(Self::Park),
            ("java.lang.Thread", "sleep" | "sleep0" | "sleepNanos0") => Some(Self::Sleep),
            _ => None,
        }
    }
}

impl Code {
    /// What a thread waits for that blocks with this as its innermost Java code. `None`: for what the kernel says.
    pub fn wait(&self) -> Option<Wait> {
        match self.frames.first()? {
            Frame::Made(name) if self.tier == Tier::Stub => Wait::of_stub(name),
            Frame::Made(_) => None,
            Frame::Java(method, _) => {
                Wait::of_method(method).or_else(|| self.enters_monitor.then_some(Wait::Monitor))
            }
        }
    }
}

/// Whether an interpreted frame enters a monitor: the bytecode before this one does (cpu/x86/templateTable_x86.cpp: the index is
/// that of the next one by then), or the method that it begins is synchronized. That only if the bytecode is none that a thread
/// could wait in itself.
pub fn enters_monitor(memory: &impl Memory, layout: &Layout, method: u64, found: &Method, bci: u16) -> bool {
    let bytecodes = found.const_method.wrapping_add(layout.method.const_method_size);
    let at = |bci: u16| memory.u8(bytecodes.wrapping_add(u64::from(bci))).ok();
    if at(bci).is_none_or(|bytecode| WAIT.iter().any(|range| range.contains(&bytecode))) {
        return false;
    }
    match bci.checked_sub(1) {
        Some(before) => at(before) == Some(MONITORENTER),
        // The lowest byte of flags that have 2 or 4 bytes.
        None => layout.method.access_flags.is_some_and(|offset| {
            memory.u8(method.wrapping_add(offset)).is_ok_and(|flags| flags & SYNCHRONIZED != 0)
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn stubs_tell_what_compiled_code_waits_for() {
        let of = |name: &str, tier| {
            Code { frames: vec![Frame::Made(Arc::from(name))], tier, enters_monitor: false }.wait()
        };
        for (name, wait) in [
            ("_complete_monitor_locking_Java", Some(Wait::Monitor)),
            ("C2 Runtime complete_monitor_locking", Some(Wait::Monitor)),
            ("monitorenter_nofpu Runtime1 stub", Some(Wait::Monitor)),
            ("monitorexit Runtime1 stub", None),
            ("_new_array_Java", Some(Wait::Allocation)),
            ("C1 Runtime new_multi_array_blob", Some(Wait::Allocation)),
            ("SafepointBlob", Some(Wait::Safepoint)),
            ("_monitor_notify_Java", None),
        ] {
            assert_eq!(of(name, Tier::Stub), wait, "{name}");
        }
        assert_eq!(of("Interpreter", Tier::Interpreter), None);
    }
}
