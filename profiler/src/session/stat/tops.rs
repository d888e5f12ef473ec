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

/// Calls whose functions jump to ones of other names (kernel/exit.c).
const JUMPED_TO: [(&str, &str); 2] = [("kernel_wait4", "wait4"), ("kernel_waitid", "waitid")];

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
        let (samples, blocked) = (profile.column("samples"), profile.column("offcpu"));
        let mut of_stack: HashMap<StackId, (u64, u64)> = HashMap::new();
        for sample in &profile.samples {
            let sums = of_stack.entry(sample.stack).or_default();
            sums.0 += sample.amount(samples);
            sums.1 += sample.amount(blocked);
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
    if !is_kernel(frame) {
        return None;
    }
    let name = frame.function.name.as_str();
    let jumped_to = || JUMPED_TO.into_iter().find(|(function, _)| *function == name).map(|(_, call)| call);
    CALLS.into_iter().find_map(|prefix| name.strip_prefix(prefix)).or_else(jumped_to)
}

/// The cause in a label of the module `[off-cpu]`: `[blocked: futex, until the end]`.
pub fn cause(label: &str) -> Option<&str> {
    label.strip_prefix("[blocked: ")?.split([',', ']']).next()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::{
        model::{SampleType, StackEnd, Unit},
        render::fixture::{At, Builder, at, module, thread},
    };

    /// Samples of a CPU, and times that a thread was blocked, each with its stack.
    pub fn profile(samples: &[(&[&str], i64)], blocked: &[(&[&str], i64)]) -> Profile {
        let mut builder = Builder::default();
        builder.0.sample_types = vec![
            SampleType::new("samples", Unit::Count),
            SampleType::new("cpu", Unit::Nanoseconds),
            SampleType::new("offcpu", Unit::Nanoseconds),
            SampleType::new("blocks", Unit::Count),
        ];
        let (kernel, program) =
            (module("[kernel]", ModuleKind::Kernel), module("/bin/program", ModuleKind::Native));
        let off = module("[off-cpu]", ModuleKind::Kernel);
        let frame = |name: &&str| -> At {
            match name.strip_prefix("k:") {
                Some(name) => at(&kernel, 1, name),
                None if name.starts_with('[') => at(&off, 0, name),
                None => at(&program, 1, name),
            }
        };
        let mut add = |stack: &[&str], values: Vec<i64>| {
            let frames: Vec<_> = stack.iter().map(frame).collect();
            builder.sample(thread(7, 7, "program", "program"), &frames, StackEnd::Complete, 0, values);
        };
        samples.iter().for_each(|(stack, n)| add(stack, vec![*n, n * 10, 0, 0]));
        blocked.iter().for_each(|(stack, ns)| add(stack, vec![0, 0, *ns, 1]));
        builder.0
    }

    #[test]
    fn samples_are_where_they_hit() {
        let tops = Tops::of(&profile(
            &[
                (&["work", "main"], 6),
                (&["k:copy", "k:__x64_sys_read", "k:do_syscall_64", "read", "main"], 3),
                (&["k:read_zero", "k:x64_sys_call", "k:do_syscall_64", "read", "main"], 1),
                (&["k:clear_page", "k:exc_page_fault", "work", "main"], 2),
                (&["k:free", "k:do_exit", "k:do_group_exit", "k:__x64_sys_exit_group", "_exit"], 1),
                (&["k:napi", "k:handle_softirqs", "k:__x64_sys_sendto", "send"], 4),
                (&[], 1),
            ],
            &[],
        ));
        let of = [Side::User, Side::Syscall, Side::Kernel, Side::Interrupt].map(|side| tops.of_side(side));
        assert_eq!((of, tops.samples()), ([7, 4, 3, 4], 18));
        let functions = tops.functions(Side::Syscall, 1_000);
        let found: Vec<_> = functions.iter().map(|f| (f.function.as_str(), f.ns, f.samples)).collect();
        assert_eq!(found, [("copy", 750, Some(3)), ("read_zero", 250, Some(1))]);
    }

    #[test]
    fn waits_have_the_innermost_function_of_user_mode_and_their_call() {
        let tops = Tops::of(&profile(
            &[],
            &[
                (
                    &[
                        "[blocked: pipe]",
                        "k:schedule",
                        "k:vfs_read",
                        "k:ksys_read",
                        "k:do_syscall_64",
                        "get",
                        "main",
                    ],
                    50,
                ),
                (&["[blocked: pipe, until the end]", "k:schedule", "k:ksys_read", "get", "other"], 20),
                (&["[blocked: wait]", "k:do_wait", "k:kernel_wait4", "k:do_syscall_64", "wait4"], 5),
                (&["[blocked: kernel-thread]", "k:schedule", "k:kthread"], 9),
            ],
        ));
        let functions = |cause: &str| -> Vec<_> {
            tops.blocked_functions(cause).into_iter().map(|f| (f.function, f.ns, f.samples)).collect()
        };
        assert_eq!(functions("pipe"), [("get".to_owned(), 70, None)]);
        assert_eq!(functions("kernel-thread"), [("[no user stack]".to_owned(), 9, None)]);
        assert_eq!(tops.blocking_calls("pipe"), [("read".to_owned(), 70)]);
        assert_eq!(tops.blocking_calls("wait"), [("wait4".to_owned(), 5)]);
        assert_eq!(tops.samples(), 0);
    }
}
