//! What stands out in the samples: functions by where they ran, and by what they were blocked by.

use std::collections::{BTreeMap, HashMap};

use crate::model::{
    Frame, ModuleKind, Profile, StackId,
    stat::{Function, MAX_TOP},
};

/// Where a sample of a CPU hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// User mode.
    User,
    /// A system call.
    Syscall,
    /// Kernel mode otherwise.
    Kernel,
    /// A soft interrupt on top of a thread. Handlers of interrupts are seen by none but a hardware event.
    Interrupt,
}

/// Functions of the kernel that are in each stack of a soft interrupt (kernel/softirq.c; the first since Linux 6.11).
const SOFT_INTERRUPTS: [&str; 3] = ["handle_softirqs", "__do_softirq", "__softirqentry_text_start"];

/// The end of a thread, a call that is none any more (kernel/exit.c).
const EXIT: &str = "do_exit";

/// How the names of the kernel's functions for system calls begin (`__SYSCALL_DEFINEx`, arch/*/include/asm/syscall_wrapper.h;
/// include/linux/syscalls.h, include/linux/socket.h). The outer ones can be missing in stacks: they jump to the inner ones.
const CALLS: [&str; 9] = [
    "__x64_sys_",
    "__ia32_sys_",
    "__ia32_compat_sys_",
    "__arm64_sys_",
    "__arm64_compat_sys_",
    "__se_sys_",
    "__do_sys_",
    "ksys_",
    "__sys_",
];

/// The functions that call them (arch/x86/entry/syscall_64.c since Linux 6.9, arch/arm64/kernel/syscall.c).
const CALLERS: [&str; 2] = ["x64_sys_call", "invoke_syscall"];

/// A function: name and module.
type Place = (String, String);

/// Sums of the samples.
#[derive(Debug, Default)]
pub struct Tops {
    /// Samples of a CPU.
    on_cpu: HashMap<(Side, Place), u64>,
    sides: BTreeMap<Side, u64>,
    /// Time blocked, ns, by cause.
    blocked: HashMap<(String, Place), u64>,
    /// The same by system call.
    calls: HashMap<(String, String), u64>,
}

impl Tops {
    /// Those of a profile.
    pub fn of(profile: &Profile) -> Self {
        let mut tops = Self::default();
        let column = |name: &str| profile.sample_types.iter().position(|known| known.name == name);
        let value = |sample: &crate::model::Sample, column: Option<usize>| {
            let value = column.and_then(|column| sample.values.get(column)).copied().unwrap_or(0);
            u64::try_from(value).unwrap_or(0)
        };
        let (samples, blocked) = (column("samples"), column("offcpu"));
        let mut of_stack: HashMap<StackId, (u64, u64)> = HashMap::new();
        for sample in &profile.samples {
            let sums = of_stack.entry(sample.stack).or_default();
            sums.0 += value(sample, samples);
            sums.1 += value(sample, blocked);
        }
        for (stack, (samples, blocked)) in of_stack {
            if samples != 0 {
                tops.add_sample(profile, stack, samples);
            }
            if blocked != 0 {
                tops.add_blocked(profile, stack, blocked);
            }
        }
        tops
    }

    fn add_sample(&mut self, profile: &Profile, stack: StackId, samples: u64) {
        let side = side(profile.frames(stack));
        let leaf = profile.frames(stack).next();
        let place = leaf.map_or_else(no_stack, |leaf| place(&leaf));
        *self.sides.entry(side).or_default() += samples;
        *self.on_cpu.entry((side, place)).or_default() += samples;
    }

    fn add_blocked(&mut self, profile: &Profile, stack: StackId, ns: u64) {
        let mut frames = profile.frames(stack);
        let Some(cause) = frames.next().and_then(|label| cause(&label.function.name).map(str::to_owned))
        else {
            return;
        };
        let mut call = None;
        let user = frames.find(|frame| {
            // The outermost is the one that was called.
            call = call_of(frame).or(call);
            !is_kernel(frame)
        });
        let place = user.map_or_else(no_stack, |frame| place(&frame));
        if let Some(call) = call {
            *self.calls.entry((cause.clone(), call.to_owned())).or_default() += ns;
        }
        *self.blocked.entry((cause, place)).or_default() += ns;
    }

    /// Samples of CPUs.
    pub fn samples(&self) -> u64 {
        self.sides.values().sum()
    }

    /// Samples of one side.
    pub fn of_side(&self, side: Side) -> u64 {
        self.sides.get(&side).copied().unwrap_or(0)
    }

    /// The functions of a side that most samples hit. Of its time `ns` each has as much as of its samples.
    pub fn functions(&self, side: Side, ns: u64) -> Vec<Function> {
        let all = self.of_side(side);
        let of_side = self.on_cpu.iter().filter(|((other, _), _)| *other == side);
        let share = |samples: u64| {
            let ns = (u128::from(ns) * u128::from(samples)).checked_div(u128::from(all)).unwrap_or(0);
            u64::try_from(ns).unwrap_or(u64::MAX)
        };
        let function = |(place, samples): (&Place, u64)| Function {
            function: place.0.clone(),
            module: place.1.clone(),
            ns: share(samples),
            samples: Some(samples),
        };
        most(of_side.map(|((_, place), &samples)| (place, samples))).into_iter().map(function).collect()
    }

    /// The innermost functions of user mode that were blocked longest.
    pub fn blocked_functions(&self, cause: &str) -> Vec<Function> {
        let of_cause = self.blocked.iter().filter(|((other, _), _)| other == cause);
        let function = |(place, ns): (&Place, u64)| Function {
            function: place.0.clone(),
            module: place.1.clone(),
            ns,
            samples: None,
        };
        most(of_cause.map(|((_, place), &ns)| (place, ns))).into_iter().map(function).collect()
    }

    /// The system calls that were blocked longest, and how long, ns.
    pub fn blocking_calls(&self, cause: &str) -> Vec<(String, u64)> {
        let of_cause = self.calls.iter().filter(|((other, _), _)| other == cause);
        most(of_cause.map(|((_, call), &ns)| (call, ns)))
            .into_iter()
            .map(|(call, ns)| (call.clone(), ns))
            .collect()
    }
}

/// Those with most, in order.
fn most<'a, K: Ord>(all: impl Iterator<Item = (&'a K, u64)>) -> Vec<(&'a K, u64)> {
    let mut all: Vec<_> = all.collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    all.truncate(MAX_TOP);
    all
}

fn is_kernel(frame: &Frame<'_>) -> bool {
    frame.module.kind == ModuleKind::Kernel
}

fn place(frame: &Frame<'_>) -> Place {
    (frame.function.name.clone(), frame.module.name().to_owned())
}

/// What stands for the function where there is no stack, or no user part of one.
fn no_stack() -> Place {
    ("[no user stack]".to_owned(), String::new())
}

fn side<'a>(frames: impl Iterator<Item = Frame<'a>>) -> Side {
    let (mut side, mut ends) = (Side::User, false);
    for frame in frames.take_while(is_kernel) {
        let name = frame.function.name.as_str();
        if SOFT_INTERRUPTS.contains(&name) {
            return Side::Interrupt;
        }
        ends |= name == EXIT;
        let is_call = (CALLERS.contains(&name) || call_of(&frame).is_some()) && !ends;
        if side == Side::User || is_call {
            side = if is_call { Side::Syscall } else { Side::Kernel };
        }
    }
    side
}

/// The system call whose function a frame is.
fn call_of<'a>(frame: &Frame<'a>) -> Option<&'a str> {
    let name = frame.function.name.as_str();
    CALLS.into_iter().find_map(|prefix| name.strip_prefix(prefix)).filter(|_| is_kernel(frame))
}

/// The cause in a label of the module `[off-cpu]`: `[blocked: futex, until the end]`.
fn cause(label: &str) -> Option<&str> {
    label.strip_prefix("[blocked: ")?.split([',', ']']).next()
}
