//! Places in the kernel's code that drop packets, by name: looked up once each, all new ones of a span together.

use std::collections::HashMap;

use crate::{
    model::name::clean,
    symbolize::kallsyms::{self, KernelName, KernelNames},
};

/// The names found so far.
#[derive(Default)]
pub struct Locations {
    names: HashMap<u64, String>,
}

impl Locations {
    /// Looks up those that are not known yet.
    pub fn resolve(&mut self, addresses: impl Iterator<Item = u64>) {
        let mut new: Vec<u64> = addresses.filter(|address| !self.names.contains_key(address)).collect();
        new.sort_unstable();
        new.dedup();
        if new.is_empty() {
            return;
        }
        // They are behind a call, which can be a function's last instruction.
        let calls: Vec<u64> = new.iter().map(|address| address.saturating_sub(1)).collect();
        let found = match kallsyms::find(&calls) {
            KernelNames::Found(names) => names,
            KernelNames::Hidden => vec![None; new.len()],
        };
        for (address, name) in new.into_iter().zip(found) {
            self.names.insert(address, text(address, name.as_ref()));
        }
    }

    /// The name of a place, or its address.
    pub fn name(&self, address: u64) -> String {
        self.names.get(&address).cloned().unwrap_or_else(|| text(address, None))
    }
}

fn text(address: u64, name: Option<&KernelName>) -> String {
    let Some(name) = name else { return format!("{address:#x} [no symbols]") };
    let function = clean(&name.name);
    let offset = address.saturating_sub(name.start);
    match &name.module {
        Some(module) => format!("{function}+{offset:#x} [{}]", clean(module)),
        None => format!("{function}+{offset:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_functions_with_offsets() {
        let name = KernelName { name: b"drop\n".to_vec(), start: 0x1000, module: None };
        assert_eq!(text(0x101f, Some(&name)), "drop\\n+0x1f");
        let of_module = KernelName { module: Some(b"veth".to_vec()), ..name };
        assert_eq!(text(0x1001, Some(&of_module)), "drop\\n+0x1 [veth]");
        assert_eq!(text(0x1001, None), "0x1001 [no symbols]");
    }

    #[test]
    fn an_address_in_no_function_keeps_its_number() {
        let mut locations = Locations::default();
        locations.resolve([1, 1].into_iter());
        assert_eq!(locations.name(1), "0x1 [no symbols]");
        assert_eq!(locations.names.len(), 1);
    }
}
