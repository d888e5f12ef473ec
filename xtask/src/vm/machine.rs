//! The virtual machines: one per architecture, run by qemu's own emulation (TCG).
//!
//! Never by KVM: `/dev/kvm` may be there and not work, and what a guest does would depend on it.

use std::{path::Path, process::Command};

use super::qemu::Qemu;

/// A virtual machine of one architecture.
#[derive(Debug, PartialEq, Eq)]
pub struct Machine {
    /// As Rust names it.
    pub arch: &'static str,
    /// As Debian names it.
    pub debian: &'static str,
    /// qemu's program, and the package that it is in.
    pub qemu: &'static str,
    pub qemu_package: &'static str,
    board: &'static [&'static str],
    /// The console's device, for the kernel.
    console: &'static str,
    /// What else the kernel is told.
    parameters: &'static str,
}

/// All that there are.
pub const MACHINES: [Machine; 2] = [
    Machine {
        arch: "x86_64",
        debian: "amd64",
        qemu: "qemu-system-x86_64",
        qemu_package: "qemu-system-x86",
        board: &["-machine", "q35", "-cpu", "max"],
        console: "ttyS0",
        // Emulated, the mitigations cost time and protect nobody. What does not work under emulation is looked for in
        // vain for seconds.
        parameters: "mitigations=off tsc=reliable no_timer_check",
    },
    Machine {
        arch: "aarch64",
        debian: "arm64",
        qemu: "qemu-system-aarch64",
        qemu_package: "qemu-system-arm",
        board: &["-machine", "virt", "-cpu", "cortex-a72"],
        console: "ttyAMA0",
        parameters: "mitigations=off",
    },
];

/// CPUs of a guest: more than one, so that what is per CPU is seen to be.
const CPUS: &str = "2";

/// MiB of a guest. The root file system, unpacked and packed, is 150 of it.
const MEMORY: &str = "1024";

impl Machine {
    /// The machine of an architecture.
    pub fn of(arch: &str) -> Option<&'static Self> {
        MACHINES.iter().find(|machine| machine.arch == arch || machine.debian == arch)
    }

    /// The command that boots a kernel with a root file system. Each of `settings` is a variable of the first process.
    ///
    /// One thread emulates all CPUs in turns. With a thread for each, qemu before 8.1 misses, while it translates code for
    /// one CPU, that another one patches it, as attaching to a tracepoint does (`text_poke_bp_batch`,
    /// arch/x86/kernel/alternative.c): a breakpoint that is gone is hit later. Kernels panic then (`Oops: int3`), or, if they
    /// look again, come back to it for ever.
    pub fn boot(&self, qemu: &Qemu, kernel: &Path, root: &Path, settings: &[(&str, String)]) -> Command {
        // A panic ends the machine (`-no-reboot`), and so does powering off.
        let mut line = format!(
            "console={} quiet loglevel=1 panic=-1 rdinit=/init nokaslr {}",
            self.console, self.parameters
        );
        for (name, value) in settings {
            line.push_str(&format!(" {name}={value}"));
        }
        let mut command = qemu.command();
        command.args(self.board).args(["-smp", CPUS, "-m", MEMORY]);
        command.args(["-accel", "tcg,thread=single", "-nodefaults", "-no-user-config", "-no-reboot"]);
        command.args(["-display", "none", "-serial", "stdio", "-append", &line]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(root);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_of_an_architecture_are_known() {
        assert_eq!(Machine::of("arm64"), Machine::of("aarch64"));
        assert_eq!(Machine::of("riscv64"), None);
    }

    #[test]
    fn a_guest_is_emulated_and_gets_its_settings() {
        let command = MACHINES[0].boot(
            &Qemu::Installed("qemu"),
            "/k".as_ref(),
            "/r".as_ref(),
            &[("VM_WORD", "abc".to_owned())],
        );
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        assert!(args.windows(2).any(|pair| pair == ["-accel", "tcg,thread=single"]), "{args:?}");
        assert!(args.iter().any(|arg| arg.contains("console=ttyS0") && arg.ends_with(" VM_WORD=abc")));
        assert!(!args.iter().any(|arg| arg.contains("kvm")));
    }
}
