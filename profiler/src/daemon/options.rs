//! From what the daemon is to look at to what a session is told.

use std::{path::Path, time::Duration};

use profiler_common::{filter::FilterConfig, sched::wait::WaitConfig};

use super::config::Config;
use crate::{
    host::btf::{self, BtfError},
    model::{name, net, syscalls::By, window::Rates},
    probe::{Chosen, Event, syscalls::Depth},
    session::{
        Closeness, RecordOptions, UnwindMode, continuous::ContinuousOptions, net::NetworkOptions,
        sched::AccountOptions, syscalls::SyscallOptions,
    },
};

/// What is looked at, and how closely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Samples per second and CPU; 0: CPUs are not sampled.
    pub frequency_hz: u64,
    /// Record blocked times by stack; how long those must be is a matter of [`Closeness`].
    pub offcpu: bool,
    /// Account system calls.
    pub calls: bool,
    /// Account sockets.
    pub network: bool,
    /// Read what JVMs count of themselves.
    pub jvms: bool,
    /// Kernel memory for unwind tables, bytes.
    pub unwind_memory: u64,
    /// How long windows are.
    pub window: Duration,
    /// Have the kernel side log.
    pub log: bool,
}

/// How closely is looked, as windows say it.
pub fn rates(config: &Config, closeness: Closeness) -> Rates {
    closeness.rates(config.sampling.offcpu)
}

/// What the session is told.
///
/// # Errors
/// What this kernel does not tell of tasks or sockets.
pub fn continuous(look: &Look) -> Result<ContinuousOptions, BtfError> {
    let path = Path::new(btf::VMLINUX);
    let account = AccountOptions {
        event: "daemon",
        duration: None,
        interval: None,
        filter: FilterConfig::ALL,
        targets: Vec::new(),
        target_words: "all processes".to_owned(),
        offsets: btf::task_offsets(path)?,
        sched_offsets: btf::sched_offsets(path)?,
        btf: path.to_owned(),
        counters: Some(Vec::new()),
        wakers: false,
        // A part of each window is measured.
        ebpf_cost: false,
        log: look.log,
        command_line: std::env::args_os().map(|arg| name::clean(arg.as_encoded_bytes())).collect(),
        notes: Vec::new(),
    };
    let network = look.network.then(|| -> Result<_, BtfError> {
        Ok(NetworkOptions {
            account: account.clone(),
            offsets: btf::net_offsets(path)?,
            by: net::By::Process,
            sockets: None,
            round_trips: false,
            resolve: false,
        })
    });
    Ok(ContinuousOptions {
        samples: samples(look, &account),
        network: network.transpose()?,
        calls: look.calls,
        jvms: look.jvms,
        window: look.window,
        accounts: SyscallOptions {
            account,
            by: By::Process,
            depth: Depth::Timed,
            histogram: true,
            accounts: None,
            force_fallback: Vec::new(),
        },
    })
}

/// What is sampled; `None`: nothing.
fn samples(look: &Look, account: &AccountOptions) -> Option<RecordOptions> {
    let cpu = (look.frequency_hz != 0).then(|| Chosen::whole(Event::Cpu));
    let offcpu = look.offcpu.then(|| Chosen::whole(Event::OffCpu));
    let events: Vec<Chosen> = cpu.into_iter().chain(offcpu).collect();
    if events.is_empty() {
        return None;
    }
    let waits = look.offcpu.then(|| WaitConfig { blocked: 1, guess_short: 1, ..WaitConfig::default() });
    Some(RecordOptions {
        events,
        frequency_hz: look.frequency_hz,
        sampler: None,
        duration: None,
        filter: account.filter,
        targets: Vec::new(),
        target_words: account.target_words.clone(),
        offsets: account.offsets,
        btf: account.btf.clone(),
        force_fallback: Vec::new(),
        waits: waits.map(|waits| (waits, account.sched_offsets)),
        net: None,
        call_stacks: None,
        small: true,
        allow_attach: false,
        idle: false,
        unwind: UnwindMode::Auto,
        unwind_memory: look.unwind_memory,
        ebpf_cost: false,
        log: account.log,
        command_line: account.command_line.clone(),
        notes: Vec::new(),
    })
}
