//! Every way a program's file can be: linked, stripped, deleted, replaced, in another root or namespace.

use std::{fs, path::Path, process::Command};

use profiler::{
    model::{FrameKind, ModuleKind, Reason},
    perf::record::{FileIdentity, ProcessEvent},
    symbolize::{Symbolizer, Watch},
};

use crate::program::{PROGRAM, Resolved, Running, compile, look_up, owner, run, symbolizer_of};

fn functions(running: &Running) -> [u64; 3] {
    ["local_function", "global_function", "main"].map(|name| running.address(name))
}

fn assert_named(resolved: &Resolved) {
    let names: Vec<&str> = (0..3).map(|index| resolved.name(index)).collect();
    assert_eq!(names, ["local_function", "global_function", "main"]);
}

fn look_up_functions(running: &Running) -> Resolved {
    look_up(symbolizer_of(running.pid()), running.pid(), &functions(running))
}

#[test]
fn every_way_of_linking() {
    let dir = tempfile::tempdir().unwrap();
    let ways: [&[&str]; 6] = [
        &["-O1", "-pie"],
        &["-O1", "-no-pie"],
        &["-O1", "-static"],
        &["-O1", "-static-pie"],
        &["-O1", "-Wl,--build-id=none"],
        &["-O1", "-Wl,-z,noseparate-code"],
    ];
    for (index, flags) in ways.iter().enumerate() {
        let program = compile("cc", dir.path(), &format!("way{index}"), PROGRAM, flags);
        let running = Running::start(&mut Command::new(&program));
        let resolved = look_up_functions(&running);
        assert_named(&resolved);
        assert_eq!(resolved.module(0).path, program.to_str().unwrap());
        assert_eq!(resolved.module(0).kind, ModuleKind::Native);
        assert_eq!(resolved.module(0).build_id.is_some(), !flags.contains(&"-Wl,--build-id=none"));
        let location = &resolved.profile.locations[resolved.location(0).index()];
        assert_eq!(location.kind, FrameKind::Native);
    }
}

#[test]
fn a_stripped_program_has_only_what_it_exports() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile("cc", dir.path(), "stripped", PROGRAM, &["-O1", "-rdynamic", "-s"]);
    let running = Running::start(&mut Command::new(&program));
    let resolved = look_up_functions(&running);
    assert_eq!(resolved.reason(0), Some(Reason::NoSymbols));
    assert!(resolved.name(0).starts_with("stripped+0x1"), "{}", resolved.name(0));
    assert!(resolved.name(0).ends_with(" [no symbols]"));
    assert_eq!(resolved.name(1), "global_function");
    assert_eq!(resolved.name(2), "main");
}

#[test]
fn an_address_behind_a_function_is_not_the_function() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile("cc", dir.path(), "gaps", PROGRAM, &["-O1", "-falign-functions=256"]);
    let running = Running::start(&mut Command::new(&program));
    let behind = running.address("local_function") + 255;
    let resolved = look_up(symbolizer_of(running.pid()), running.pid(), &[behind]);
    assert_eq!(resolved.reason(0), Some(Reason::NoSymbolFound), "{}", resolved.name(0));
    assert!(resolved.name(0).starts_with("gaps+0x1"));
}

/// The stubs lie behind the label `_init`, which must not swallow them.
#[test]
fn stubs_of_the_linkage_table() {
    let dir = tempfile::tempdir().unwrap();
    for flags in [&["-O1", "-no-pie"][..], &["-O1", "-no-pie", "-s", "-fcf-protection", "-Wl,-z,ibtplt"]] {
        let program = compile("cc", dir.path(), "stubs", PROGRAM, flags);
        let output =
            Command::new("objdump").args(["-d", "-j", ".plt", "-j", ".plt.sec"]).arg(&program).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let line = text.lines().find(|line| line.contains("<read@plt>:")).expect("objdump names stubs");
        let stub = u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap();
        let running = Running::start(&mut Command::new(&program));
        let plt = section_address(&program, ".plt");
        let resolved = look_up(symbolizer_of(running.pid()), running.pid(), &[stub, stub + 6, plt + 1]);
        assert_eq!(resolved.name(0), "read@plt", "{flags:?}");
        assert_eq!(resolved.name(1), "read@plt");
        assert!(resolved.reason(2).is_some(), "the loader's own stub has no name: {}", resolved.name(2));
    }
}

fn section_address(program: &Path, name: &str) -> u64 {
    let output = Command::new("objdump").arg("-h").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let section = text.lines().map(fields).find(|fields| fields.get(1).is_some_and(|n| n == name)).unwrap();
    u64::from_str_radix(&section[3], 16).unwrap()
}

#[test]
fn deleted_and_replaced_while_running() {
    let dir = tempfile::tempdir().unwrap();
    for build_id in ["-Wl,--build-id", "-Wl,--build-id=none"] {
        let program = compile("cc", dir.path(), "victim", PROGRAM, &["-O1", build_id]);
        let running = Running::start(&mut Command::new(&program));
        fs::remove_file(&program).unwrap();
        let resolved = look_up_functions(&running);
        assert_named(&resolved);
        assert_eq!(resolved.module(0).name(), "victim", "without the kernel's mark of deletion");
        // Another program takes its place: names must still be those of the one that runs.
        let other = PROGRAM.replace("local_function", "impostor").replace("global_function", "imposture");
        compile("cc", dir.path(), "victim", &other, &["-O1", build_id]);
        assert_named(&look_up_functions(&running));
    }
}

#[test]
fn a_file_overwritten_in_place_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile("cc", dir.path(), "victim", PROGRAM, &["-O1"]);
    let mut running = Running::start(&mut Command::new(&program));
    let (pid, addresses) = (running.pid(), functions(&running));
    let mut symbolizer = symbolizer_of(pid);
    let mut frames = Vec::new();
    for address in addresses {
        symbolizer.user_stack(owner(pid), &[address], &mut frames);
    }
    running.end();
    fs::write(&program, "something else").unwrap();
    let resolved = Resolved::new(symbolizer, frames);
    assert_eq!(resolved.reason(0), Some(Reason::FileChanged));
}

/// The events that the kernel would have sent for a process that is there.
fn events_of(pid: u32, with_build_id: Option<&[u8]>) -> Vec<ProcessEvent> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let mut events =
        vec![ProcessEvent::Comm { pid, tid: pid, time_ns: 1, comm: b"victim".into(), exec: true }];
    for line in maps.lines().filter(|line| line.contains(" r-xp ") && line.contains('/')) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (start, end) = fields[0].split_once('-').unwrap();
        let (major, minor) = fields[3].split_once(':').unwrap();
        let inode = FileIdentity::Inode {
            device: (number(major) as u32, number(minor) as u32),
            inode: fields[4].parse().unwrap(),
        };
        let is_program = fields[5].ends_with("/victim");
        events.push(ProcessEvent::Mmap {
            pid,
            time_ns: 2,
            start: number(start),
            len: number(end) - number(start),
            file_offset: number(fields[2]),
            path: fields[5].into(),
            identity: match with_build_id {
                Some(id) if is_program => Some(FileIdentity::BuildId(id.to_vec())),
                _ => Some(inode),
            },
        });
    }
    events
}

fn build_id_of(program: &Path) -> Vec<u8> {
    let file = fs::File::open(program).unwrap();
    let headers = profiler::elf::read_headers(profiler::elf::Bytes::File(&file)).unwrap();
    headers.build_id.unwrap()
}

/// A process that has ended before its events are read: its file is found by path, if it is the same file.
#[test]
fn a_process_that_is_gone_when_its_events_are_read() {
    let dir = tempfile::tempdir().unwrap();
    for by_build_id in [true, false] {
        let program = compile("cc", dir.path(), "victim", PROGRAM, &["-O1"]);
        let build_id = build_id_of(&program);
        let mut running = Running::start(&mut Command::new(&program));
        let (pid, addresses) = (running.pid(), functions(&running));
        let events = events_of(pid, by_build_id.then_some(&build_id));
        running.end();
        let names = |events: &[ProcessEvent]| {
            let mut symbolizer = Symbolizer::new(Watch::All);
            events.iter().for_each(|event| symbolizer.observe(event));
            let comm = symbolizer.process_comm(owner(pid)).unwrap();
            assert_eq!(&comm[..7], b"victim\0");
            look_up(symbolizer, pid, &addresses)
        };
        assert_named(&names(&events));
        compile("cc", dir.path(), "new", &PROGRAM.replace("local", "other"), &["-O1"]);
        fs::rename(dir.path().join("new"), &program).unwrap();
        assert_eq!(names(&events).reason(0), Some(Reason::FileChanged));
        fs::remove_file(&program).unwrap();
        assert_eq!(names(&events).reason(0), Some(Reason::FileGone));
    }
}

#[test]
fn a_process_that_was_never_seen_alive() {
    let mut symbolizer = Symbolizer::new(Watch::All);
    // Above PID_MAX_LIMIT (2^22): there can be no such process.
    let pid = 1 << 23;
    let mut frames = Vec::new();
    symbolizer.user_stack(owner(pid), &[0x1234], &mut frames);
    assert_eq!(symbolizer.process_comm(owner(pid)), None);
    let resolved = Resolved::new(symbolizer, frames);
    assert_eq!(resolved.reason(0), Some(Reason::ProcessGone));
    assert_eq!(resolved.name(0), "[unknown] [process gone]");
}

#[test]
fn an_address_in_no_mapping() {
    let resolved = look_up(symbolizer_of(std::process::id()), std::process::id(), &[0x10, u64::MAX - 5]);
    for index in 0..2 {
        assert_eq!(resolved.reason(index), Some(Reason::NoMapping));
        assert_eq!(resolved.name(index), "[unknown] [no mapping]");
        assert_eq!(resolved.module(index).kind, ModuleKind::Unknown);
    }
}

#[test]
fn in_a_chroot_with_its_own_debug_file() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("opt")).unwrap();
    let program = compile("cc", dir.path(), "jailed", PROGRAM, &["-O1", "-g", "-static"]);
    let id: String = build_id_of(&program).iter().map(|byte| format!("{byte:02x}")).collect();
    let debug = root.join(format!("usr/lib/debug/.build-id/{}", &id[..2]));
    fs::create_dir_all(&debug).unwrap();
    let debug = debug.join(format!("{}.debug", &id[2..]));
    run(Command::new("objcopy").arg("--only-keep-debug").arg(&program).arg(&debug));
    run(Command::new("strip").arg(&program).arg("-o").arg(root.join("opt/jailed")));
    let running = Running::start(Command::new("chroot").arg(&root).arg("/opt/jailed"));
    let resolved = look_up_functions(&running);
    assert_named(&resolved);
    assert_eq!(resolved.places(1)[0].0, "jailed.c");
}

#[test]
fn in_another_mount_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile("cc", dir.path(), "hidden", PROGRAM, &["-O1"]);
    // The tmpfs, and the program on it, exist inside the namespace only.
    let script =
        format!("mount -t tmpfs none /mnt && cp {} /mnt/inside && exec /mnt/inside", program.display());
    let running = Running::start(Command::new("unshare").args(["--mount", "sh", "-c", &script]));
    assert!(!Path::new("/mnt/inside").exists());
    assert_named(&look_up_functions(&running));
}

#[test]
fn separate_debug_file_by_link() {
    let dir = tempfile::tempdir().unwrap();
    for build_id in ["-Wl,--build-id", "-Wl,--build-id=none"] {
        let program = compile("cc", dir.path(), "linked", PROGRAM, &["-O1", "-g", build_id]);
        let debug = dir.path().join(".debug/linked.debug");
        fs::create_dir_all(debug.parent().unwrap()).unwrap();
        run(Command::new("objcopy").arg("--only-keep-debug").arg(&program).arg(&debug));
        run(Command::new("strip").arg(&program));
        run(Command::new("objcopy").arg(format!("--add-gnu-debuglink={}", debug.display())).arg(&program));
        let running = Running::start(&mut Command::new(&program));
        let resolved = look_up_functions(&running);
        assert_named(&resolved);
        assert_eq!(resolved.places(0)[0], ("linked.c".to_owned(), 4));
        // A debug file of another build must not be believed.
        let other = format!("int shift(void) {{ return 7; }}\n{PROGRAM}");
        let other = compile("cc", dir.path(), "other", &other, &["-O1", "-g", build_id]);
        run(Command::new("objcopy").arg("--only-keep-debug").arg(&other).arg(&debug));
        assert_eq!(look_up_functions(&running).reason(0), Some(Reason::NoSymbols));
    }
}
