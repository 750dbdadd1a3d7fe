"""Every method: literal tables of what each one is, and how a name becomes one value. Import `resolve` from here."""
