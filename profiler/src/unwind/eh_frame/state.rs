//! What call frame instructions add up to at one address, and the rule that it makes.

use gimli::{CallFrameInstruction, CommonInformationEntry, Register, UnwindExpression, UnwindSection};
use profiler_common::unwind::{
    Arch,
    rule::{CFA_OFFSET, FpRule, Kind, Parts, RaRule, Rule},
};

use super::{Cause, Slice, expression};

/// Most states that are remembered at a time; compilers remember one, hand-written code two.
const MAX_REMEMBERED: usize = 64;

/// DWARF's numbers of the registers that are followed.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    /// Stack pointer.
    pub sp: Register,
    /// Frame pointer.
    pub fp: Register,
    /// Column of the return address.
    pub ra: Register,
}

impl Registers {
    /// The numbers on an architecture.
    pub const fn of(arch: Arch) -> Self {
        match arch {
            Arch::X86_64 => Self { sp: gimli::X86_64::RSP, fp: gimli::X86_64::RBP, ra: gimli::X86_64::RA },
            Arch::Aarch64 => {
                Self { sp: gimli::AArch64::SP, fp: gimli::AArch64::X29, ra: gimli::AArch64::X30 }
            }
        }
    }
}

/// How the CFA is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cfa {
    /// Nothing was said yet.
    Unset,
    Register(Register, i64),
    Expression(Kind, i64),
    UnknownExpression,
}

/// Where a register of the caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing was said.
    Unset,
    Same,
    Undefined,
    AtCfa(i64),
    AtFp(i64),
    Other,
}

/// The rules for the registers that are followed, at one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    cfa: Cfa,
    fp: Place,
    ra: Place,
}

impl State {
    /// Nothing was said yet.
    pub const UNSET: Self = Self { cfa: Cfa::Unset, fp: Place::Unset, ra: Place::Unset };

    /// The rule that these make.
    pub fn rule(&self, arch: Arch) -> Result<Rule, Cause> {
        if self.ra == Place::Undefined {
            return Ok(Rule::END);
        }
        let registers = Registers::of(arch);
        let (kind, cfa_offset) = match self.cfa {
            Cfa::Register(register, offset) if register == registers.sp => (Kind::Sp, offset),
            Cfa::Register(register, offset) if register == registers.fp => (Kind::Fp, offset),
            Cfa::Register(..) => return Err(Cause::CfaRegister),
            Cfa::Expression(kind, offset) => (kind, offset),
            Cfa::UnknownExpression => return Err(Cause::CfaExpression),
            Cfa::Unset => return Err(Cause::Damaged),
        };
        if !CFA_OFFSET.contains(&cfa_offset) {
            return Err(Cause::CfaOffset);
        }
        let (ra, ra_offset) = match (self.ra, arch) {
            (Place::AtCfa(offset), _) => {
                (RaRule::AtCfa, i16::try_from(offset).map_err(|_| Cause::ReturnAddress)?)
            }
            (Place::Unset | Place::Same, Arch::Aarch64) => (RaRule::Same, 0),
            _ => return Err(Cause::ReturnAddress),
        };
        let (fp, fp_offset) = match self.fp {
            Place::Unset | Place::Same => (FpRule::Same, 0),
            Place::AtCfa(offset) => place(FpRule::AtCfa, offset),
            Place::AtFp(offset) => place(FpRule::AtFp, offset),
            Place::Undefined | Place::Other => (FpRule::Undefined, 0),
        };
        Ok(Rule::new(Parts { kind, cfa_offset: cfa_offset as i32, fp, fp_offset, ra, ra_offset }))
    }
}

fn place(rule: FpRule, offset: i64) -> (FpRule, i16) {
    i16::try_from(offset).map_or((FpRule::Undefined, 0), |offset| (rule, offset))
}

/// What an instruction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It changed the state, or nothing.
    None,
    /// What follows holds from that many bytes further on.
    Advance(u64),
    /// What follows holds from an address on.
    Goto(u64),
}

/// An entry or an instruction that makes no sense where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// Executes call frame instructions.
#[derive(Debug)]
pub struct Machine<'s, S> {
    section: &'s S,
    arch: Arch,
    registers: Registers,
    code_factor: u64,
    data_factor: i64,
    /// `None` while the CIE's own instructions are executed.
    initial: Option<State>,
    remembered: Vec<State>,
    /// The state that the instructions so far add up to.
    pub state: State,
}

impl<'s, 'a, S: UnwindSection<Slice<'a>>> Machine<'s, S> {
    /// Begins with `initial`, the outcome of the CIE's instructions, or with nothing to execute these.
    pub fn new(
        section: &'s S,
        arch: Arch,
        cie: &CommonInformationEntry<Slice<'a>>,
        initial: Option<State>,
    ) -> Self {
        Self {
            section,
            arch,
            registers: Registers::of(arch),
            code_factor: cie.code_alignment_factor(),
            data_factor: cie.data_alignment_factor(),
            initial,
            remembered: Vec::new(),
            state: initial.unwrap_or(State::UNSET),
        }
    }

    /// Executes one instruction.
    pub fn execute(&mut self, instruction: &CallFrameInstruction<usize>) -> Result<Effect, Damaged> {
        use CallFrameInstruction as I;
        match *instruction {
            I::AdvanceLoc { delta } => {
                return Ok(Effect::Advance(u64::from(delta).wrapping_mul(self.code_factor)));
            }
            I::SetLoc { address } => return Ok(Effect::Goto(address)),
            I::DefCfa { register, offset } => self.state.cfa = Cfa::Register(register, offset as i64),
            I::DefCfaSf { register, factored_offset } => {
                self.state.cfa = Cfa::Register(register, self.factored(factored_offset));
            }
            I::DefCfaRegister { register } => {
                let Cfa::Register(_, offset) = self.state.cfa else { return Err(Damaged) };
                self.state.cfa = Cfa::Register(register, offset);
            }
            I::DefCfaOffset { offset } => self.set_cfa_offset(offset as i64)?,
            I::DefCfaOffsetSf { factored_offset } => self.set_cfa_offset(self.factored(factored_offset))?,
            I::DefCfaExpression { expression } => self.state.cfa = self.cfa(expression),
            I::RememberState => {
                if self.remembered.len() >= MAX_REMEMBERED {
                    return Err(Damaged);
                }
                self.remembered.push(self.state);
            }
            I::RestoreState => self.state = self.remembered.pop().ok_or(Damaged)?,
            I::Restore { register } => {
                let initial = self.initial.ok_or(Damaged)?;
                self.set(
                    register,
                    |registers| {
                        if register == registers.fp { initial.fp } else { initial.ra }
                    },
                );
            }
            // The walker takes a pointer authentication code off whether there is one or not.
            I::NegateRaState | I::ArgsSize { .. } | I::Nop => {}
            ref place => self.place(place),
        }
        Ok(Effect::None)
    }

    /// Instructions that say where a register is.
    fn place(&mut self, instruction: &CallFrameInstruction<usize>) {
        use CallFrameInstruction as I;
        match *instruction {
            I::Undefined { register } => self.set(register, |_| Place::Undefined),
            I::SameValue { register } => self.set(register, |_| Place::Same),
            I::Offset { register, factored_offset } => {
                let offset = self.factored(factored_offset as i64);
                self.set(register, |_| Place::AtCfa(offset));
            }
            I::OffsetExtendedSf { register, factored_offset } => {
                let offset = self.factored(factored_offset);
                self.set(register, |_| Place::AtCfa(offset));
            }
            I::Expression { register, expression } => {
                let place = expression
                    .get(self.section)
                    .ok()
                    .and_then(|bytes| expression::at_frame_pointer(bytes.0.slice(), &self.registers))
                    .map_or(Place::Other, Place::AtFp);
                self.set(register, |_| place);
            }
            I::Register { dest_register: register, .. }
            | I::ValOffset { register, .. }
            | I::ValOffsetSf { register, .. }
            | I::ValExpression { register, .. } => self.set(register, |_| Place::Other),
            _ => {}
        }
    }

    fn set(&mut self, register: Register, place: impl Fn(&Registers) -> Place) {
        if register == self.registers.fp {
            self.state.fp = place(&self.registers);
        } else if register == self.registers.ra {
            self.state.ra = place(&self.registers);
        }
    }

    fn set_cfa_offset(&mut self, offset: i64) -> Result<(), Damaged> {
        let Cfa::Register(register, _) = self.state.cfa else { return Err(Damaged) };
        self.state.cfa = Cfa::Register(register, offset);
        Ok(())
    }

    fn factored(&self, offset: i64) -> i64 {
        offset.wrapping_mul(self.data_factor)
    }

    fn cfa(&self, expression: UnwindExpression<usize>) -> Cfa {
        expression
            .get(self.section)
            .ok()
            .and_then(|bytes| expression::cfa(bytes.0.slice(), &self.registers, self.arch))
            .map_or(Cfa::UnknownExpression, |(kind, offset)| Cfa::Expression(kind, offset))
    }
}
