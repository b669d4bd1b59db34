"""Retraining unattended: when, what a tick does, who is told, and what is left on the disk.

A tick is one supervised attempt, or a few, to run the pipeline. The process that supervises (`tick`, `daemon`) never
imports TFX, so that it stays small for a year; each attempt is a process of its own (`attempt`).
"""
