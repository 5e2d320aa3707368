//! The Windlass node agent, embeddable in other programs.
