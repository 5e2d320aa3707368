//! What both halves of Windlass need: facts table, schema engine, quantities, selectors.
