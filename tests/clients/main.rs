//! Real clients: kubectl in every version on PATH's machine.

mod kubectl;
