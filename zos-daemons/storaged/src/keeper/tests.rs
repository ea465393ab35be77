//! Boots, played through.
