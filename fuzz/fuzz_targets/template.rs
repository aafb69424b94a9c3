//! A template: any JSON compiles or is refused, and one that compiles can be filled from an empty scope or says why not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selvedge_kernel::pipeline::expression::Scope;
use selvedge_kernel::pipeline::template::Template;

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = serde_json::from_slice(bytes) else { return };
    if let Ok(template) = Template::compile(&value) {
        let _ = template.roots();
        let _ = template.eval(&Scope::new());
    }
});
