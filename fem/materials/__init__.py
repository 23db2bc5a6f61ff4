"""Constitutive laws: plain functions from UFL to UFL."""
