//! The caller of a made-up frame by gimli's rows, compared with the caller by a table's rule.
//!
//! The frame's registers and the memory are arbitrary but fixed, so that two rules that mean different things give
//! different callers, whatever form they are written in.

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, EvaluationResult, Expression, LittleEndian,
    Location, Register, RegisterRule, UnwindContext, UnwindSection, UnwindTableRow, Value, X86_64,
};
use object::{Object, ObjectSection};
use profiler::unwind::table::Table;
use profiler_common::{
    registers::Registers,
    stack::WalkEnd,
    unwind::{
        Arch,
        step::{self, Caller},
    },
};

type Slice<'a> = EndianSlice<'a, LittleEndian>;

const SP: u64 = 0x10_0000;
const FP: u64 = 0x4000_0000;

/// Any word of memory: far above both registers, so that a caller's frame lies further out.
fn word(address: u64) -> u64 {
    0x6000_0000_0000 | (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17 & !7)
}

/// The registers of a caller, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Caller {
        pc: u64,
        sp: u64,
        fp: Option<u64>,
    },
    Outermost,
    Signal,
    /// Other registers are needed.
    Unknown,
}

/// What was compared.
#[derive(Debug, Default)]
pub struct Checked {
    pub rows: usize,
    pub unsupported: usize,
    pub signal_frames: usize,
}

/// The unwind information of a file, read by gimli.
pub struct Oracle<'a> {
    section: EhFrame<Slice<'a>>,
    bases: BaseAddresses,
}

impl<'a> Oracle<'a> {
    pub fn new(file: &'a [u8]) -> Self {
        let file = object::File::parse(file).expect("an ELF file");
        let frames = file.section_by_name(".eh_frame").expect("it has unwind information");
        let data = frames.data().expect("its bytes are in the file");
        let bases = BaseAddresses::default().set_eh_frame(frames.address());
        Self { section: EhFrame::new(data, LittleEndian), bases }
    }

    /// Compares the table with each row, at its first and last address and between.
    pub fn compare(&self, table: &Table) -> Checked {
        let mut checked = Checked::default();
        let mut context = UnwindContext::new();
        let mut entries = self.section.entries(&self.bases);
        while let Some(entry) = entries.next().expect("well-formed") {
            let CieOrFde::Fde(partial) = entry else { continue };
            let entry = partial.parse(EhFrame::cie_from_offset).expect("well-formed");
            let signal = entry.is_signal_trampoline();
            let mut rows = entry.rows(&self.section, &self.bases, &mut context).expect("well-formed");
            while let Some(row) = rows.next_row().expect("well-formed") {
                let (start, end) = (row.start_address(), row.end_address());
                if start >= end {
                    continue;
                }
                for address in [start, start + (end - start) / 2, end - 1] {
                    let expected = if signal { Answer::Signal } else { self.answer(row, address) };
                    self.check(table, address, expected, &mut checked);
                }
            }
        }
        checked
    }

    fn check(&self, table: &Table, address: u64, expected: Answer, checked: &mut Checked) {
        checked.rows += 1;
        checked.signal_frames += usize::from(expected == Answer::Signal);
        let rule = table.lookup(address);
        let frame = Registers { pc: address, sp: SP, fp: FP, lr: 0 };
        let ours = match step::by_rule(Arch::X86_64, rule, &frame, true, |address| Some(word(address))) {
            Ok(Caller { interrupted: true, .. }) => Answer::Signal,
            Ok(Caller { registers, .. }) => {
                Answer::Caller { pc: registers.pc, sp: registers.sp, fp: Some(registers.fp) }
            }
            Err(WalkEnd::Complete) => Answer::Outermost,
            Err(WalkEnd::UnsupportedRule) => Answer::Unknown,
            Err(other) => panic!("differs at {address:#x}: {other:?} where gimli has {expected:?}"),
        };
        if ours == Answer::Unknown && expected == Answer::Unknown {
            checked.unsupported += 1;
            return;
        }
        let expected = match expected {
            // The frame pointer is lost: ours is 0.
            Answer::Caller { pc, sp, fp } => Answer::Caller { pc, sp, fp: Some(fp.unwrap_or(0)) },
            other => other,
        };
        assert_eq!(ours, expected, "differs at {address:#x}");
    }

    fn answer(&self, row: &UnwindTableRow<usize>, pc: u64) -> Answer {
        if row.register(X86_64::RA) == Some(RegisterRule::Undefined) {
            return Answer::Outermost;
        }
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                value(*register, pc).map(|value| value.wrapping_add_signed(*offset))
            }
            CfaRule::Expression(expression) => {
                evaluate(expression.get(&self.section).expect("well-formed"), pc, None)
            }
        };
        let Some(cfa) = cfa else { return Answer::Unknown };
        let Some(Some(return_address)) = self.saved(row, X86_64::RA, cfa, pc) else { return Answer::Unknown };
        let fp = self.saved(row, X86_64::RBP, cfa, pc).unwrap_or(Some(FP));
        Answer::Caller { pc: return_address, sp: cfa, fp }
    }

    /// The value of a register in the caller; `Some(None)` if it is lost, `None` if nothing is said of it.
    fn saved(
        &self,
        row: &UnwindTableRow<usize>,
        register: Register,
        cfa: u64,
        pc: u64,
    ) -> Option<Option<u64>> {
        Some(match row.register(register)? {
            RegisterRule::SameValue => value(register, pc),
            RegisterRule::Offset(offset) => Some(word(cfa.wrapping_add_signed(offset))),
            RegisterRule::Expression(expression) => {
                evaluate(expression.get(&self.section).expect("well-formed"), pc, Some(cfa)).map(word)
            }
            _ => None,
        })
    }
}

fn value(register: Register, pc: u64) -> Option<u64> {
    match register {
        X86_64::RSP => Some(SP),
        X86_64::RBP => Some(FP),
        X86_64::RA => Some(pc),
        _ => None,
    }
}

/// `None` if another register is needed.
fn evaluate(expression: Expression<Slice<'_>>, pc: u64, initial: Option<u64>) -> Option<u64> {
    let encoding = gimli::Encoding { address_size: 8, format: gimli::Format::Dwarf32, version: 4 };
    let mut evaluation = expression.evaluation(encoding);
    if let Some(initial) = initial {
        evaluation.set_initial_value(initial);
    }
    let mut result = evaluation.evaluate().expect("well-formed");
    loop {
        result = match result {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresRegister { register, .. } => {
                evaluation.resume_with_register(Value::Generic(value(register, pc)?)).expect("well-formed")
            }
            EvaluationResult::RequiresMemory { address, .. } => {
                evaluation.resume_with_memory(Value::Generic(word(address))).expect("well-formed")
            }
            other => panic!("unwind information does not use {other:?}"),
        };
    }
    match evaluation.as_result() {
        [piece] => match piece.location {
            Location::Address { address } => Some(address),
            other => panic!("unwind information does not use {other:?}"),
        },
        other => panic!("unwind information does not use {other:?}"),
    }
}
