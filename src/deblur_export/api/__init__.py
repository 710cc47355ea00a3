"""The functions of `import deblur_export`, one for each verb; each file may be imported alone."""
